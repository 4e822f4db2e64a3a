"""The picture server of the extra [serve]: one thread owns the models, an asyncio front speaks HTTP."""
