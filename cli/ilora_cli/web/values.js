// Runs once per map, with `element` as its root. Reads numbers where the pointer is (or, by the arrow keys, the last pixel).
const SIDE = 256;   // of a tile, as in values.py
const AROUND = 5;   // pixels around the one that is read, in the magnifier
const tiles = new Map();
let wanted = null;  // what was pointed at last: an answer that comes later than the next question is dropped

const box = () => element.querySelector(".ilora-values");

function numbers(source, column, row) {
  const address = `${source}?column=${column}&row=${row}`;
  if (!tiles.has(address)) {
    const answer = fetch(address).then((reply) => {
      if (!reply.ok) throw new Error(reply.status === 404 ? "no longer kept: draw it again" : `HTTP ${reply.status}`);
      return reply.arrayBuffer();
    });
    answer.catch(() => tiles.delete(address));
    tiles.set(address, answer.then((bytes) => new Float32Array(bytes)));
  }
  return tiles.get(address);
}

function magnify(root, x, y) {
  const canvas = root.querySelector("canvas"), picture = root.querySelector("img");
  const context = canvas.getContext("2d"), pixel = canvas.width / (2 * AROUND + 1);
  context.imageSmoothingEnabled = false;
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, x - AROUND, y - AROUND, 2 * AROUND + 1, 2 * AROUND + 1, 0, 0, canvas.width, canvas.height);
  context.strokeStyle = "#fff";
  context.lineWidth = 3;
  context.strokeRect(AROUND * pixel, AROUND * pixel, pixel, pixel);
  context.strokeStyle = "#000";
  context.lineWidth = 1;
  context.strokeRect(AROUND * pixel, AROUND * pixel, pixel, pixel);
}

function mark(root, x, y) {
  const { width, height } = root.dataset, cross = root.querySelector(".cross");
  cross.style.left = `${(100 * (x + 0.5)) / width}%`;
  cross.style.top = `${(100 * (y + 0.5)) / height}%`;
  cross.hidden = false;
}

async function read(x, y) {
  const root = box();
  const { width, height, channels, source, unit } = root.dataset;
  const names = JSON.parse(root.dataset.names);
  x = Math.max(0, Math.min(width - 1, x));
  y = Math.max(0, Math.min(height - 1, y));
  const question = (wanted = { x, y });
  magnify(root, x, y);
  mark(root, x, y);
  const column = Math.floor(x / SIDE), row = Math.floor(y / SIDE), output = root.querySelector("output");
  try {
    const found = await numbers(source, column, row);
    if (wanted !== question) return;
    const across = Math.min(SIDE, width - column * SIDE);
    const start = ((y - row * SIDE) * across + (x - column * SIDE)) * channels;
    const here = Array.from(found.subarray(start, start + Number(channels)));
    root.dataset.pixel = JSON.stringify([x, y]);
    root.dataset.values = JSON.stringify(here);
    output.replaceChildren();
    const place = document.createElement("b");
    place.textContent = `x ${x}  y ${y}`;
    const told = document.createElement("span");
    told.textContent = here.map((value, i) => `${names[i]} ${value.toFixed(4)}`).join("   ");
    const meaning = document.createElement("i");
    meaning.textContent = unit;
    output.append(place, told, meaning);
  } catch (error) {
    output.textContent = `cannot read this pixel: ${error.message}`;
  }
}

element.addEventListener("pointermove", (event) => {
  const picture = event.target.closest(".ilora-values .map")?.querySelector("img");
  if (!picture) return;
  const shown = picture.getBoundingClientRect(), { width, height } = box().dataset;
  const x = Math.floor(((event.clientX - shown.left) * width) / shown.width);
  const y = Math.floor(((event.clientY - shown.top) * height) / shown.height);
  read(x, y);
});

element.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!step || !event.target.closest(".ilora-values .map")) return;
  event.preventDefault();
  const { x, y } = wanted ?? { x: Math.floor(box().dataset.width / 2), y: Math.floor(box().dataset.height / 2) };
  read(x + step[0], y + step[1]);
});
