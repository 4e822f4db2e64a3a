// A request to the server, and the events of its answer one by one.

export function headers(key) {
  return {"Content-Type": "application/json", ...(key ? {Authorization: `Bearer ${key}`} : {})};
}

export async function* ask(body, key, signal) {
  const answer = await fetch("v1/images/generations", {method: "POST", headers: headers(key), body: JSON.stringify(body), signal});
  if (answer.ok) yield* events(answer.body);
  else yield {type: "error", status: answer.status, ...await answer.json()};
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const line = part.split("\n").find(line => line.startsWith("data: "));
      if (line) yield JSON.parse(line.slice(6));
    }
  }
}
