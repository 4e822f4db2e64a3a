// The page: a form to a request, a stream of progress and previews, a gallery. No framework, no other host.
import {Easel} from "./easel.js";
import {Gallery} from "./gallery.js";
import {Mix} from "./mix.js";
import {ask, headers} from "./stream.js";

const $ = id => document.getElementById(id);
const chosen = name => document.querySelector(`input[name=${name}]:checked`).value;
let limits = null, running = null, lastSeed = null, timer = 0;
const easel = new Easel($("canvas"), () => ({tool: chosen("tool"), colour: $("colour").value, brush: Number($("brush").value)}), showMarked);
const mix = new Mix($("items"), () => { if ($("live").checked && lastSeed !== null) later(); }, say);
const gallery = new Gallery($("gallery"), restore, change);

async function connect() {
  try {
    const answer = await fetch("v1/capabilities", {headers: headers($("key").value)});
    $("keyrow").hidden = answer.status !== 401 && !$("key").value;
    if (answer.status === 401) { $("state").textContent = "This server asks for a key."; return; }
    limits = await answer.json();
    offer(limits);
    $("state").textContent = "Ready.";
  } catch { $("state").textContent = "The server does not answer. Is it running?"; }
}

function offer({sizes, samplers, defaults, pictures, limits}) {
  fill($("size"), sizes);
  fill($("sampler"), samplers, true);
  const {width, height, num_inference_steps} = defaults.decoder;
  $("size").value = sizes.includes(`${width}x${height}`) ? `${width}x${height}` : sizes[0];
  if (!$("steps").value) $("steps").value = num_inference_steps;
  $("steps").max = limits.steps;
  mix.most = limits.items;
  const can = name => pictures.includes(name);
  gallery.changes = can("image");
  document.querySelector("input[value=edit]").closest("label").hidden = !can("image");
  $("addimage").disabled = !can("items");
  for (const tool of ["mark", "erase"]) document.querySelector(`input[value=${tool}]`).closest("label").hidden = !can("mask");
  if (!can("mask")) document.querySelector("input[value=paint]").checked = true;
  resize();
}

function fill(select, values, keepFirst) {
  while (select.options.length > (keepFirst ? 1 : 0)) select.remove(select.options.length - 1);
  for (const value of values) select.add(new Option(value, value));
}

function resize() { easel.resize(...$("size").value.split("x").map(Number)); }

function showKind() {
  $("mixpart").hidden = chosen("kind") !== "mix";
  $("textpart").hidden = chosen("kind") === "mix";
  $("editpart").hidden = chosen("kind") !== "edit";
}

function showMarked(share) {
  $("strengthrow").hidden = share > 0;
  $("pasterow").hidden = !share;
  $("marked").textContent = share ? `Marked: ${Math.max(Math.round(share * 100), 1)} % of the picture. That is repainted.`
    : "Nothing is marked: the whole picture is changed.";
}

function later() { clearTimeout(timer); timer = setTimeout(() => draw(lastSeed), 250); }

function body(seed) {
  const found = {size: $("size").value, steps: Number($("steps").value), stream: true, partial_images: 3, progress: true};
  if ($("negative").value) found.negative_prompt = $("negative").value;
  if ($("sampler").value) found.sampler = $("sampler").value;
  const given = $("seed").value.trim() || (seed === null || seed === undefined ? "" : String(seed));
  if (given) found.seed = Number(given);
  if (chosen("kind") === "mix") return {...found, items: mix.asked};
  found.prompt = $("prompt").value;
  if (chosen("kind") === "text") return found;
  found.image = easel.image;
  return easel.marked ? {...found, mask: easel.mask, paste: $("paste").checked} : {...found, strength: Number($("strength").value)};
}

function say(text) { $("message").textContent = text; }

async function draw(seed) {
  if (running) running.abort();
  const own = running = new AbortController(), asked = body(seed);
  if (asked.items && !asked.items.length) { say("Add a text or a picture to mix."); running = null; return; }
  if (!asked.items && !asked.prompt.trim()) { say("Write what to draw."); $("prompt").focus(); running = null; return; }
  $("stop").disabled = false; $("progress").value = 0; say("Waiting …");
  try {
    for await (const event of ask(asked, $("key").value, own.signal)) show(event, asked);
  } catch (error) {
    if (running === own) say(error.name === "AbortError" ? "Stopped." : "The connection broke: draw again.");
  } finally {
    if (running === own) { running = null; $("stop").disabled = true; $("preview").hidden = true; }
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
    gallery.keep(event, asked);
  } else if (event.type === "error") {
    say(`No picture: ${event.error.message}`);
    if (event.status === 401) connect();
  }
}

function choose(kind) {
  document.querySelector(`input[name=kind][value=${kind}]`).checked = true;
  showKind();
}

async function restore(asked, seed) {
  choose(asked.items ? "mix" : asked.image ? "edit" : "text");
  $("prompt").value = asked.prompt || "";
  mix.set(asked.items || []);
  $("negative").value = asked.negative_prompt || "";
  $("size").value = asked.size; $("steps").value = asked.steps; $("sampler").value = asked.sampler || ""; $("seed").value = seed;
  resize();
  if (asked.image) await easel.load(asked.image);
  if (asked.mask) { await easel.loadMarks(asked.mask); $("paste").checked = asked.paste; }
  if (asked.strength) setStrength(asked.strength);
  draw(seed);
}

async function change(address) {
  choose("edit");
  await easel.load(address);
  $("canvas").focus();
}

function setStrength(value) { $("strength").value = value; $("strengthshown").textContent = Number(value).toFixed(2); }

function opened(input, use) {
  input.addEventListener("change", () => {
    const [file] = input.files;
    if (!file) return;
    const reader = new FileReader();
    reader.onload = () => Promise.resolve(use(reader.result, file.name)).catch(() => say(`${file.name} is no picture that can be read.`));
    reader.readAsDataURL(file);
    input.value = "";
  });
}

$("form").addEventListener("submit", event => { event.preventDefault(); draw(null); });
$("stop").addEventListener("click", () => running && running.abort());
$("kind").addEventListener("change", showKind);
$("size").addEventListener("change", resize);
$("key").addEventListener("change", connect);
$("strength").addEventListener("input", () => setStrength($("strength").value));
$("blank").addEventListener("click", () => easel.blank());
$("undo").addEventListener("click", () => easel.undo());
$("unmark").addEventListener("click", () => easel.unmark());
$("addtext").addEventListener("click", () => {
  mix.add({text: ""});
  const added = $("items").querySelector("li:last-child input:not([type=range])");
  if (added) added.focus();
});
opened($("addimage"), (image, name) => mix.add({image, name}));
opened($("open"), image => easel.load(image));
document.addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); draw(null); }
  if (event.key === "Escape" && running) running.abort();
});
connect();
