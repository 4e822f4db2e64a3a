"use strict";
// The page: a form to a request, a stream of progress and previews, a gallery. No framework, no other host.
const $ = id => document.getElementById(id);
let limits = null, items = [], running = null, lastSeed = null, timer = 0;

function headers() {
  const key = $("key").value;
  return {"Content-Type": "application/json", ...(key ? {Authorization: `Bearer ${key}`} : {})};
}

async function connect() {
  try {
    const answer = await fetch("v1/capabilities", {headers: headers()});
    $("keyrow").hidden = answer.status !== 401 && !$("key").value;
    if (answer.status === 401) { $("state").textContent = "This server asks for a key."; return; }
    limits = await answer.json();
    fill($("size"), limits.sizes);
    fill($("sampler"), limits.samplers, true);
    const {width, height} = limits.defaults.decoder;
    $("size").value = limits.sizes.includes(`${width}x${height}`) ? `${width}x${height}` : limits.sizes[0];
    if (!$("steps").value) $("steps").value = limits.defaults.decoder.num_inference_steps;
    $("steps").max = limits.limits.steps;
    $("state").textContent = "Ready.";
  } catch { $("state").textContent = "The server does not answer. Is it running?"; }
}

function fill(select, values, keepFirst) {
  while (select.options.length > (keepFirst ? 1 : 0)) select.remove(select.options.length - 1);
  for (const value of values) select.add(new Option(value, value));
}

const mixes = () => document.querySelector("input[name=kind]:checked").value === "mix";

function showKind() { $("mixpart").hidden = !mixes(); $("textpart").hidden = mixes(); }

function addItem(item) {
  if (limits && items.length >= limits.limits.items) { say(`At most ${limits.limits.items} can be mixed.`); return; }
  items.push({weight: 0.5, ...item});
  showItems();
}

function showItems() {
  $("items").replaceChildren(...items.map((item, index) => {
    const row = document.createElement("li"), number = index + 1, name = item.image ? "picture" : "text";
    let subject;
    if (item.image) {
      subject = document.createElement("img");
      subject.src = item.image; subject.alt = `picture ${number}: ${item.name}`;
    } else {
      subject = document.createElement("input");
      subject.value = item.text; subject.setAttribute("aria-label", `text ${number}`);
      subject.oninput = () => { item.text = subject.value; };
    }
    const slider = document.createElement("input"), shown = document.createElement("output"), drop = document.createElement("button");
    Object.assign(slider, {type: "range", min: -1, max: 1, step: 0.05, value: item.weight});
    slider.setAttribute("aria-label", `weight of ${name} ${number}`);
    shown.textContent = item.weight.toFixed(2);
    slider.oninput = () => { item.weight = Number(slider.value); shown.textContent = item.weight.toFixed(2); };
    slider.onchange = () => { if ($("live").checked && lastSeed !== null) later(); };
    drop.type = "button"; drop.textContent = "Remove"; drop.setAttribute("aria-label", `remove ${name} ${number}`);
    drop.onclick = () => { items.splice(index, 1); showItems(); };
    row.append(subject, slider, shown, drop);
    return row;
  }));
}

function later() { clearTimeout(timer); timer = setTimeout(() => draw(lastSeed), 250); }

function body(seed) {
  const found = {size: $("size").value, steps: Number($("steps").value), stream: true, partial_images: 3, progress: true};
  if ($("negative").value) found.negative_prompt = $("negative").value;
  if ($("sampler").value) found.sampler = $("sampler").value;
  const chosen = $("seed").value.trim() || (seed === null || seed === undefined ? "" : String(seed));
  if (chosen) found.seed = Number(chosen);
  if (mixes()) found.items = items.map(({text, image, weight}) => image ? {image, weight} : {text, weight});
  else found.prompt = $("prompt").value;
  return found;
}

function say(text) { $("message").textContent = text; }

async function draw(seed) {
  if (running) running.abort();
  const own = running = new AbortController(), asked = body(seed);
  if (mixes() && !items.length) { say("Add a text or a picture to mix."); running = null; return; }
  if (!mixes() && !asked.prompt.trim()) { say("Write what to draw."); $("prompt").focus(); running = null; return; }
  $("stop").disabled = false; $("progress").value = 0; say("Waiting …");
  try {
    const answer = await fetch("v1/images/generations", {method: "POST", headers: headers(), body: JSON.stringify(asked), signal: own.signal});
    if (!answer.ok) {
      const {error} = await answer.json();
      say(`No picture: ${error.message}`);
      if (answer.status === 401) connect();
      return;
    }
    for await (const event of events(answer.body)) show(event, asked);
  } catch (error) {
    if (running === own) say(error.name === "AbortError" ? "Stopped." : "The connection broke: draw again.");
  } finally {
    if (running === own) { running = null; $("stop").disabled = true; $("preview").hidden = true; }
  }
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

function show(event, asked) {
  if (event.type === "image_generation.progress") {
    $("progress").value = event.progress;
    if (event.status === "queued") say(`Waiting: ${event.queue_position} before you.`);
    if (event.status === "generating") say(`Step ${event.step} of ${event.steps}.`);
  } else if (event.type === "image_generation.partial_image") {
    $("preview").hidden = false;
    $("preview").src = `data:image/png;base64,${event.b64_json}`;
    $("preview").alt = `preview ${event.partial_image_index + 1}`;
  } else if (event.type === "image_generation.completed") {
    lastSeed = event.seed;
    say([`Done in ${event.seconds.toFixed(1)} s.`, ...(event.warnings || [])].join(" "));
    keep(event, asked);
  } else if (event.type === "error") say(`No picture: ${event.error.message}`);
}

function keep(event, asked) {
  const row = document.createElement("li"), image = document.createElement("img"), text = document.createElement("p");
  const again = document.createElement("button"), save = document.createElement("a");
  const subject = asked.items
    ? asked.items.map(item => `${item.weight.toFixed(2)} x ${item.text || "a picture"}`).join(", ") : asked.prompt;
  image.src = `data:image/png;base64,${event.b64_json}`;
  image.alt = subject;
  text.textContent = [subject, asked.negative_prompt && `away from ${asked.negative_prompt}`, `seed ${event.seed}`,
    `${asked.steps} steps`, asked.size, asked.sampler].filter(Boolean).join(" · ");
  again.type = "button"; again.textContent = "Again"; again.setAttribute("aria-label", `put back the settings of: ${subject}`);
  again.onclick = () => restore(asked, event.seed);
  save.className = "button"; save.textContent = "Download"; save.href = image.src; save.download = `picture-${event.seed}.png`;
  row.append(image, text, again, " ", save);
  $("gallery").prepend(row);
}

function restore(asked, seed) {
  document.querySelector(`input[name=kind][value=${asked.items ? "mix" : "text"}]`).checked = true;
  showKind();
  $("prompt").value = asked.prompt || "";
  items = (asked.items || []).map(item => ({name: "a picture", ...item}));
  showItems();
  $("negative").value = asked.negative_prompt || "";
  $("size").value = asked.size; $("steps").value = asked.steps; $("sampler").value = asked.sampler || ""; $("seed").value = seed;
  draw(seed);
}

$("form").addEventListener("submit", event => { event.preventDefault(); draw(null); });
$("stop").addEventListener("click", () => running && running.abort());
$("kind").addEventListener("change", showKind);
$("key").addEventListener("change", connect);
$("addtext").addEventListener("click", () => {
  addItem({text: ""});
  const added = $("items").querySelector("li:last-child input:not([type=range])");
  if (added) added.focus();
});
$("addimage").addEventListener("change", event => {
  const file = event.target.files[0];
  if (!file) return;
  const reader = new FileReader();
  reader.onload = () => addItem({image: reader.result, name: file.name});
  reader.readAsDataURL(file);
  event.target.value = "";
});
document.addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); draw(null); }
  if (event.key === "Escape" && running) running.abort();
});
connect();
