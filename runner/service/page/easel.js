// A picture to draw on, and marks on it of what to repaint: by mouse, finger or keyboard.

const SHOWN = 512;  // pixels that the canvas has at least on its longer side, so that marks are fine on small pictures
const MOST_UNDO = 12;
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

export class Easel {
  // settings: gives {tool: "mark", "erase" or "paint", colour, brush: the width in hundredths of the picture's}.
  // changed: called with the share of the picture that is marked, 0 to 1, when it may be another.
  constructor(canvas, settings, changed) {
    Object.assign(this, {canvas, settings, changed, past: [], at: null, down: false});
    this.picture = layer(1, 1);
    this.marks = layer(1, 1);
    this.blank();
    canvas.onpointerdown = event => { canvas.setPointerCapture(event.pointerId); this.begin(this.place(event)); };
    canvas.onpointermove = event => this.follow(event);
    canvas.onpointerup = canvas.onpointercancel = () => this.lift();
    canvas.onpointerleave = canvas.onblur = () => { this.lift(); this.at = null; this.show(); };
    canvas.onfocus = () => { this.at ??= [this.picture.width / 2, this.picture.height / 2]; this.show(); };
    canvas.onkeydown = event => this.key(event);
  }

  // Both layers in another size; what is there is kept, scaled.
  resize(width, height) {
    if (this.picture.width === width && this.picture.height === height) return;
    for (const name of ["picture", "marks"]) {
      const old = this[name];
      this[name] = layer(width, height);
      this[name].getContext("2d").drawImage(old, 0, 0, width, height);
    }
    const scale = Math.ceil(SHOWN / Math.max(width, height));
    Object.assign(this.canvas, {width: width * scale, height: height * scale});
    Object.assign(this, {past: [], at: null});
    this.show();
  }

  blank() {
    this.remember();
    const context = this.picture.getContext("2d");
    context.fillStyle = "#ffffff";
    context.fillRect(0, 0, this.picture.width, this.picture.height);
    this.unmark(false);
  }

  // A picture from an address (of data), cut to the proportions of the canvas.
  async load(address) {
    const image = await loaded(address), {width, height} = this.picture;
    const scale = Math.max(width / image.width, height / image.height), context = this.picture.getContext("2d");
    this.remember();
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#ffffff";  // under what is transparent
    context.fillRect(0, 0, width, height);
    context.drawImage(image, (width - image.width * scale) / 2, (height - image.height * scale) / 2, image.width * scale, image.height * scale);
    this.unmark(false);
  }

  // Marks from a mask's address: white is marked.
  async loadMarks(address) {
    const image = await loaded(address), context = this.marks.getContext("2d"), {width, height} = this.marks;
    context.drawImage(image, 0, 0, width, height);
    const pixels = context.getImageData(0, 0, width, height);
    for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i];
    context.putImageData(pixels, 0, 0);
    this.show();
    this.tell();
  }

  unmark(remember = true) {
    if (remember) this.remember();
    this.marks.getContext("2d").clearRect(0, 0, this.marks.width, this.marks.height);
    this.show();
    this.tell();
  }

  undo() {
    const last = this.past.pop();
    if (!last) return;
    this.picture.getContext("2d").putImageData(last.picture, 0, 0);
    this.marks.getContext("2d").putImageData(last.marks, 0, 0);
    this.show();
    this.tell();
  }

  get marked() {
    const pixels = all(this.marks).data;
    let count = 0;
    for (let i = 3; i < pixels.length; i += 4) count += pixels[i] > 127;
    return count / (pixels.length / 4);
  }

  get image() { return this.picture.toDataURL("image/png"); }

  // White where the picture is marked, else black.
  get mask() {
    const found = layer(this.marks.width, this.marks.height), pixels = all(this.marks);
    for (let i = 0; i < pixels.data.length; i += 4) {
      pixels.data.fill(pixels.data[i + 3] > 127 ? 255 : 0, i, i + 3);
      pixels.data[i + 3] = 255;
    }
    found.getContext("2d").putImageData(pixels, 0, 0);
    return found.toDataURL("image/png");
  }

  tell() { this.changed(this.marked); }

  remember() {
    this.past.push({picture: all(this.picture), marks: all(this.marks)});
    if (this.past.length > MOST_UNDO) this.past.shift();
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * this.picture.width, (event.clientY - box.top) / box.height * this.picture.height];
  }

  follow(event) {
    const places = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const one of places.length ? places : [event]) this.move(this.place(one));
    this.show();
  }

  begin(at) {
    this.remember();
    Object.assign(this, {at, down: true});
    this.move(at);
    this.show();
  }

  move(to) {
    if (this.down) this.stroke(this.at, to);
    this.at = to;
  }

  lift() {
    if (!this.down) return;
    this.down = false;
    this.show();
    this.tell();
  }

  stroke(from, to) {
    const {tool, colour} = this.settings(), context = (tool === "paint" ? this.picture : this.marks).getContext("2d");
    context.globalCompositeOperation = tool === "erase" ? "destination-out" : "source-over";
    Object.assign(context, {lineWidth: this.width, lineCap: "round", strokeStyle: tool === "paint" ? colour : "#000000"});
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(to[0] + 0.01, to[1]);  // a dot is a line, too
    context.stroke();
    context.globalCompositeOperation = "source-over";
  }

  get width() { return Math.max(this.settings().brush / 100 * this.picture.width, 1); }

  key(event) {
    const arrow = ARROWS[event.key];
    if (arrow) {
      const step = event.shiftKey ? 1 : Math.max(this.width / 2, 1), {width, height} = this.picture;
      const [x, y] = this.at ?? [width / 2, height / 2];
      this.move([Math.min(Math.max(x + arrow[0] * step, 0), width), Math.min(Math.max(y + arrow[1] * step, 0), height)]);
      this.show();
      if (this.down) this.tell();
    } else if (event.key === " ") {
      if (this.down) this.lift(); else this.begin(this.at ?? [this.picture.width / 2, this.picture.height / 2]);
      this.tell();
    } else if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) this.undo();
    else return;
    event.preventDefault();
  }

  // The picture, its marks as stripes of black and white, which any picture and any eye tells apart, and the brush.
  show() {
    const {width, height} = this.canvas, context = this.canvas.getContext("2d"), stripes = layer(width, height), over = stripes.getContext("2d");
    context.drawImage(this.picture, 0, 0, width, height);
    over.drawImage(this.marks, 0, 0, width, height);
    over.globalCompositeOperation = "source-in";
    over.fillStyle = over.createPattern(tile(Math.max(Math.round(width / 40), 8)), "repeat");
    over.fillRect(0, 0, width, height);
    context.drawImage(stripes, 0, 0);
    if (this.at) {
      const scale = width / this.picture.width;
      for (const [ink, line] of [["#ffffff", 5], ["#000000", 2]]) {
        context.beginPath();
        context.arc(this.at[0] * scale, this.at[1] * scale, this.width * scale / 2, 0, 7);
        Object.assign(context, {strokeStyle: ink, lineWidth: line * width / 1000 + 1});
        context.setLineDash(this.down ? [] : [8, 6]);
        context.stroke();
      }
    }
  }
}

function layer(width, height) {
  const found = Object.assign(document.createElement("canvas"), {width, height});
  found.getContext("2d", {willReadFrequently: true});
  return found;
}

function all(canvas) {
  return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
}

function tile(side) {
  const found = layer(side, side), context = found.getContext("2d");
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, side, side);
  Object.assign(context, {strokeStyle: "#000000", lineWidth: side * 0.35});
  for (const shift of [-side, 0, side]) {
    context.beginPath();
    context.moveTo(shift, side);
    context.lineTo(shift + side, 0);
    context.stroke();
  }
  return found;
}

async function loaded(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}
