"""What somebody may try on the server, and what each gets: never a file, an address, a fault, or another's picture."""

import base64
import io
import json
import struct
import zlib

import pytest
from PIL import Image, PngImagePlugin
from served import STEPS, served

KEY = "a-key-of-some-length"
BEARER = {"Authorization": f"Bearer {KEY}"}
GENERATE, JOBS, TXT = "/v1/images/generations", "/v1/jobs", "/sdapi/v1/txt2img"
CAT = {"prompt": "a cat", **STEPS}


@pytest.fixture(scope="module")
def server(bundles):
    with served(bundles("narrow"), key=KEY, body=1 << 20, pixels=1 << 16) as found:
        yield found


def png(width=8, height=8, text=None):
    file, info = io.BytesIO(), PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value, zip=True)
    Image.new("RGB", (width, height), "red").save(file, "PNG", pnginfo=info)
    return file.getvalue()


def claimed(width, height):
    """A PNG whose header claims a size that its data does not have."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def mix(image):
    text = image if isinstance(image, str) else base64.b64encode(image).decode()
    return {"items": [{"image": text, "weight": 1}], **STEPS}


DEEP = b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
# (name, path, body or raw bytes, headers, method, status, a word of the answer)
ATTACKS = [
    # Paths.
    ("passwd", "/../../../../etc/passwd", None, BEARER, "GET", 404, "not_found"),
    ("passwd-encoded", "/%2e%2e/%2e%2e/etc/passwd", None, BEARER, "GET", 404, "not_found"),
    ("passwd-in-page", "/page/..%2f..%2fetc/passwd", None, BEARER, "GET", 404, "not_found"),
    ("page-sibling", "/page/index.html", None, BEARER, "GET", 404, "not_found"),
    ("double-slash", "//etc/passwd", None, BEARER, "GET", 404, "not_found"),
    ("null-in-path", "/page.js%00.png", None, BEARER, "GET", 404, "not_found"),
    ("source", "/app.py", None, BEARER, "GET", 404, "not_found"),
    ("job-path", "/v1/jobs/..%2f..%2fhealth", None, BEARER, "GET", 404, "not_found"),
    ("job-guessed", "/v1/jobs/job_00000000000000000000000000000000", None, BEARER, "GET", 404, "job_not_found"),
    ("job-cancel-guessed", "/v1/jobs/1/cancel", {}, BEARER, "POST", 404, "job_not_found"),
    ("a1111-file", "/file=/etc/passwd", None, BEARER, "GET", 404, "not_found"),
    ("a1111-unload", "/sdapi/v1/unload-checkpoint", {}, BEARER, "POST", 404, "not_found"),
    # Addresses and paths in place of pictures.
    ("image-url", GENERATE, mix("http://169.254.169.254/latest/meta-data/"), BEARER, "POST", 400, "no_addresses"),
    ("image-https", GENERATE, mix("https://example.com/cat.png"), BEARER, "POST", 400, "no_addresses"),
    ("image-file-url", GENERATE, mix("file:///etc/passwd"), BEARER, "POST", 400, "no_addresses"),
    ("image-ftp", GENERATE, mix("ftp://127.0.0.1/x"), BEARER, "POST", 400, "no_addresses"),
    ("image-path", GENERATE, mix("/etc/passwd"), BEARER, "POST", 400, "invalid_value"),
    ("image-relative", GENERATE, mix("../cat.png"), BEARER, "POST", 400, "invalid_value"),
    ("image-unc", GENERATE, mix("\\\\host\\share\\cat.png"), BEARER, "POST", 400, "invalid_value"),
    ("item-path-field", GENERATE, {"items": [{"path": "/etc/passwd"}]}, BEARER, "POST", 400, "has no path"),
    ("item-sha256", GENERATE, {"items": [{"sha256": "0" * 64}]}, BEARER, "POST", 400, "has no sha256"),
    ("bundle-field", GENERATE, {**CAT, "bundle": "/etc"}, BEARER, "POST", 400, "unknown_parameter"),
    ("output-field", GENERATE, {**CAT, "output": "/x.png"}, BEARER, "POST", 400, "unknown_parameter"),
    ("task-field", GENERATE, {**CAT, "task": "interpolate"}, BEARER, "POST", 400, "unknown_parameter"),
    ("row-field", GENERATE, {**CAT, "row": 3}, BEARER, "POST", 400, "unknown_parameter"),
    ("sampler-config", GENERATE, {**CAT, "sampler": {"_class_name": "DDPMScheduler"}}, BEARER, "POST", 400, "must be a text"),
    ("sampler-module", GENERATE, {**CAT, "sampler": "os.system"}, BEARER, "POST", 400, "is not known"),
    ("a1111-save", TXT, {"prompt": "a", "save_images": True}, BEARER, "POST", 400, "save_images"),
    ("a1111-script", TXT, {"prompt": "a", "script_name": "x", "script_args": ["rm"]}, BEARER, "POST", 400, "script_name"),
    ("a1111-override", TXT, {"prompt": "a", "override_settings": {"outdir_samples": "/"}}, BEARER, "POST", 400, "override"),
    ("a1111-outdir", "/sdapi/v1/options", {"outdir_samples": "/etc"}, BEARER, "POST", 400, "cannot be set"),
    # Pictures.
    ("bomb-claimed", GENERATE, mix(claimed(60_000, 60_000)), BEARER, "POST", 400, "decompression bomb"),
    ("bomb-real", GENERATE, mix(png(2000, 2000)), BEARER, "POST", 400, "the limit is"),
    ("no-pixels", GENERATE, mix(claimed(0, 5)), BEARER, "POST", 400, "invalid_image"),
    ("cut-short", GENERATE, mix(png()[:45]), BEARER, "POST", 400, "invalid_image"),
    ("text-bomb", GENERATE, mix(png(text={"a": "x" * 100_000_000})), BEARER, "POST", 400, "invalid_image"),
    ("svg", GENERATE, mix(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'), BEARER, "POST", 400, "known format"),
    ("eps", GENERATE, mix(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), BEARER, "POST", 400, "known format"),
    ("not-a-picture", GENERATE, mix(b"hello"), BEARER, "POST", 400, "invalid_image"),
    ("not-base64", GENERATE, mix("data:image/png;base64,***"), BEARER, "POST", 400, "base64"),
    ("empty-picture", GENERATE, mix(b""), BEARER, "POST", 400, "invalid_image"),
    # Bodies.
    ("too-large", GENERATE, b"{" + b" " * (1 << 20), BEARER, "POST", 413, "too_large"),
    ("claims-to-be-large", GENERATE, b"{}", {**BEARER, "Content-Length": "99999999999"}, "POST", 413, "too_large"),
    ("negative-length", GENERATE, b"", {**BEARER, "Content-Length": "-1"}, "POST", 400, ""),
    ("deep", GENERATE, DEEP, BEARER, "POST", 400, "invalid_json"),
    ("not-json", GENERATE, b"{prompt: a cat}", BEARER, "POST", 400, "invalid_json"),
    ("nan", GENERATE, b'{"prompt": "a", "guidance": NaN}', BEARER, "POST", 400, "invalid_json"),
    ("infinite", GENERATE, b'{"prompt": "a", "guidance": 1e999}', BEARER, "POST", 400, "guidance"),
    ("huge-number", GENERATE, b'{"prompt": "a", "steps": 1' + b"0" * 5000 + b"}", BEARER, "POST", 400, "invalid_json"),
    ("twice", GENERATE, b'{"prompt": "a", "prompt": "b"}', BEARER, "POST", 400, "twice"),
    ("a-list", GENERATE, b"[1]", BEARER, "POST", 400, "JSON object"),
    ("not-utf-8", GENERATE, b'{"prompt": "\xff\xfe"}', BEARER, "POST", 400, "invalid_json"),
    ("lone-surrogate", GENERATE, b'{"prompt": "\\ud800"}', BEARER, "POST", 400, "invalid_json"),
    ("lone-surrogate-repeated", TXT, b'{"prompt": "a", "x": "\\uDFFF", "width": 16, "height": 16}', BEARER, "POST", 400, "invalid_json"),
    ("form-for-json", GENERATE, b"prompt=a", {**BEARER, "Content-Type": "application/x-www-form-urlencoded"}, "POST", 415, "application/json"),
    ("plain-for-json", GENERATE, json.dumps(CAT).encode(), {**BEARER, "Content-Type": "text/plain"}, "POST", 415, "application/json"),
    ("many-pictures", GENERATE, {**CAT, "n": 10**9}, BEARER, "POST", 400, "can be asked for"),
    ("many-steps", GENERATE, {**CAT, "steps": 10**9}, BEARER, "POST", 400, "steps"),
    ("a1111-many", TXT, {"prompt": "a", "batch_size": 10**6, "n_iter": 10**6, "width": 16, "height": 16}, BEARER, "POST", 400, "can be asked for"),
    ("large-size", GENERATE, {**CAT, "size": "99999x99999"}, BEARER, "POST", 400, "invalid_size"),
    ("long-prompt", GENERATE, {"prompt": "x" * 500_000}, BEARER, "POST", 400, "characters"),
    # Keys.
    ("no-key", GENERATE, CAT, {}, "POST", 401, "invalid_api_key"),
    ("wrong-key", GENERATE, CAT, {"Authorization": f"Bearer {KEY}x"}, "POST", 401, "invalid_api_key"),
    ("start-of-key", GENERATE, CAT, {"Authorization": f"Bearer {KEY[:-1]}"}, "POST", 401, "invalid_api_key"),
    ("empty-key", GENERATE, CAT, {"Authorization": "Bearer "}, "POST", 401, "invalid_api_key"),
    ("key-not-ascii", GENERATE, CAT, {"Authorization": "Bearer \xe9"}, "POST", 401, "invalid_api_key"),
    ("basic-garbage", GENERATE, CAT, {"Authorization": "Basic ****"}, "POST", 401, "invalid_api_key"),
    ("key-in-address", f"{GENERATE}?key={KEY}", CAT, {}, "POST", 401, "invalid_api_key"),
    ("metrics-without-key", "/metrics", None, {}, "GET", 401, "invalid_api_key"),
    ("job-without-key", "/v1/jobs/x", None, {}, "GET", 401, "invalid_api_key"),
    ("progress-without-key", "/sdapi/v1/progress", None, {}, "GET", 401, "invalid_api_key"),
    # Pages of other sites, and names that point here.
    ("rebinding", "/health", None, {"Host": "evil.example:80"}, "GET", 403, "wrong_host"),
    ("rebinding-with-key", GENERATE, CAT, {**BEARER, "Host": "evil.example"}, "POST", 403, "wrong_host"),
    ("rebinding-localhost", "/health", None, {"Host": "localhost.evil.example"}, "GET", 403, "wrong_host"),
    ("rebinding-address", "/health", None, {"Host": "127.0.0.1.evil.example"}, "GET", 403, "wrong_host"),
    ("cross-site", GENERATE, CAT, {**BEARER, "Origin": "http://evil.example"}, "POST", 403, "cross_site"),
    ("cross-site-null", GENERATE, CAT, {**BEARER, "Origin": "null"}, "POST", 403, "cross_site"),
    ("cross-site-port", GENERATE, CAT, {**BEARER, "Origin": "http://127.0.0.1:1"}, "POST", 403, "cross_site"),
    ("cross-site-fetch", "/sdapi/v1/interrupt", {}, {**BEARER, "Sec-Fetch-Site": "cross-site"}, "POST", 403, "cross_site"),
    ("same-site-fetch", "/sdapi/v1/interrupt", {}, {**BEARER, "Sec-Fetch-Site": "same-site"}, "POST", 403, "cross_site"),
    ("preflight", GENERATE, None, {**BEARER, "Origin": "http://evil.example"}, "OPTIONS", 405, "method_not_allowed"),
    # Methods and heads.
    ("trace", GENERATE, None, BEARER, "TRACE", 405, "method_not_allowed"),
    ("put", GENERATE, CAT, BEARER, "PUT", 405, "method_not_allowed"),
    ("id-with-lines", "/health", None, {"X-Request-Id": "a b;c"}, "GET", 200, "ok"),
    ("forwarded", "/metrics", None, {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "localhost"}, "GET", 401, "invalid_api_key"),
]  # fmt: skip


@pytest.mark.parametrize("path, body, headers, method, status, word", [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_attack(path, body, headers, method, status, word, server):
    raw = body if isinstance(body, bytes) else None
    found, answer, head = server.call(path, None if raw is not None else body, headers, method, raw)
    text = answer if isinstance(answer, str) else json.dumps(answer)
    assert (found, word in text) == (status, True), text[:300]
    assert "root:" not in text and "Traceback" not in text and KEY not in text
    if status not in (200, 400) or word:
        assert head["X-Content-Type-Options"] == "nosniff" and "default-src 'none'" in head["Content-Security-Policy"]
        assert head.get("Access-Control-Allow-Origin") is None
        assert head["X-Request-Id"] and " " not in head["X-Request-Id"]
    if status >= 400 and word:
        assert ("detail" in answer) if path.startswith("/sdapi/") else set(answer["error"]) == {"message", "type", "param", "code"}


def test_there_are_enough():
    assert len({row[0] for row in ATTACKS}) == len(ATTACKS) >= 60


def test_the_key_opens(server):
    assert server.call(GENERATE, CAT, BEARER)[0] == 200
    assert server.call("/")[0] == server.call("/page.js")[0] == server.call("/ready")[0] == 200
    assert KEY not in json.dumps(server.lines), "the log holds no key"
