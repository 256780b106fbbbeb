"use strict";
// The page: settings, cameras, pointer, keys, and `window.iloraViewer`, through which tests look at it.

const STEP = Math.PI / 36;

// The stage's own colour, as it is to be shown.
function paper() {
  const [r, g, b] = getComputedStyle(byId("stage")).backgroundColor.match(/[\d.]+/g).map((v) => Number(v) / 255);
  return new THREE.Color().setRGB(r, g, b);
}

class Viewer {
  constructor(scene) {
    this.scene = scene;
    this.mode = scene.depth ? "cloud" : "relit";
    this.settings = {
      colour: "picture", draw: "surface", needles: false, edges: false, fov: scene.fov, ratio: scene.depth?.ratio ?? 1,
      material: scene.albedo ? "albedo" : "picture", azimuth: -50, elevation: 35, ambient: 0.15, follow: true,
    };
    this.canvas = byId("canvas");
    this.renderer = new THREE.WebGLRenderer({ canvas: this.canvas, antialias: true, alpha: true });
    this.renderer.outputColorSpace = THREE.LinearSRGBColorSpace; // colours are stored as they are to be shown
    this.renderer.autoClear = false;
    this.cloud = scene.depth ? new Cloud(scene) : null;
    this.relit = scene.normals ? new Relit(scene) : null;
    this.camera = new THREE.PerspectiveCamera(45, 1, 0.01, 100);
    this.orbit = new THREE.OrbitControls(this.camera, this.canvas);
    this.orbit.addEventListener("change", () => this.draw());
    this.rebuild();
    if (this.cloud) this.look("oblique");
    new ResizeObserver(() => this.draw()).observe(byId("stage"));
  }

  rebuild() {
    this.cloud?.build(this.settings);
    this.relit?.build(this.settings);
  }

  change(name, value) {
    if (!(name in this.settings)) throw new Error(`the viewer has no setting ${name}`);
    this.settings[name] = value;
    if (["material", "azimuth", "elevation", "ambient"].includes(name)) this.relit?.build(this.settings);
    else if (name !== "follow") this.cloud?.build(this.settings);
    if (name === "fov" && this.atCamera) this.look("front");
    this.draw();
  }

  show(mode) {
    if ((mode === "cloud" && !this.cloud) || (mode === "relit" && !this.relit)) return;
    this.mode = mode;
    this.draw();
  }

  // Where the camera stands: "front" where the picture was taken, the others around the points.
  look(name) {
    const { camera, cloud } = this, [x, y, z] = cloud.centre, r = cloud.radius;
    this.atCamera = name === "front";
    camera.fov = this.atCamera ? this.pictureFov() : 45;
    camera.near = r / 500;
    camera.far = 40 * (r + z);
    const away = { oblique: [-0.55, 0.45, 0.8], side: [1, 0, 0.0001], top: [0, 1, 0.0001] }[name];
    if (this.atCamera) {
      camera.position.set(0, 0, 0);
      this.orbit.target.set(0, 0, -cloud.bounds[2][1]);
    } else {
      this.orbit.target.set(x, -y, -z);
      camera.position.set(...away).setLength(r * 2).add(this.orbit.target);
    }
    this.orbit.update();
    this.draw();
  }

  // Vertical field of view in which the whole picture fits the canvas.
  pictureFov() {
    const { width, height } = this.scene, f = focalPx(this.scene, this.settings.fov);
    const half = Math.max(height / 2, (width / 2) / this.aspect()) / f;
    return (2 * Math.atan(half) * 180) / Math.PI;
  }

  aspect() {
    return this.canvas.clientWidth / Math.max(1, this.canvas.clientHeight);
  }

  turn(right, up) {
    const arm = this.camera.position.clone().sub(this.orbit.target), r = arm.length();
    const polar = Math.min(Math.PI - 0.01, Math.max(0.01, Math.acos(arm.y / r) - up));
    const azimuth = Math.atan2(arm.x, arm.z) + right;
    arm.set(Math.sin(polar) * Math.sin(azimuth), Math.cos(polar), Math.sin(polar) * Math.cos(azimuth)).multiplyScalar(r);
    this.camera.position.copy(this.orbit.target).add(arm);
    this.orbit.update();
  }

  nearer(factor) {
    this.camera.position.sub(this.orbit.target).multiplyScalar(factor).add(this.orbit.target);
    this.orbit.update();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    this.renderer.setPixelRatio(Math.min(2, window.devicePixelRatio || 1));
    this.renderer.setSize(width, height, false);
    this.renderer.setClearColor(paper(), 1); // a see-through canvas is black in some frames
    this.renderer.clear();
    this.orbit.enabled = this.mode === "cloud";
    if (this.mode === "cloud") this.drawCloud(width, height);
    else this.drawRelit(width, height);
    showSettings(this);
  }

  drawCloud(width, height) {
    if (this.atCamera) this.camera.fov = this.pictureFov();
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    const pixels = (height * this.renderer.getPixelRatio()) / (2 * Math.tan((this.camera.fov * Math.PI) / 360));
    this.cloud.material.uniforms.pixels.value = pixels;
    this.renderer.setViewport(0, 0, width, height);
    this.renderer.render(this.cloud.world, this.camera);
  }

  drawRelit(width, height) {
    const { x, y, width: w, height: h } = this.relit.place(width, height);
    this.renderer.setViewport(x, y, w, h);
    this.renderer.render(this.relit.world, this.relit.camera);
  }

  // The light stands over the pointer: at the left edge of the picture it comes from the left.
  pointTo(event) {
    if (this.mode !== "relit" || !this.settings.follow) return;
    const box = this.canvas.getBoundingClientRect(), at = this.relit.place(box.width, box.height);
    const share = (p, start, length) => Math.min(1, Math.max(0, (p - start) / length)) - 0.5;
    this.settings.azimuth = Math.round(180 * share(event.clientX - box.left, at.x, at.width));
    this.settings.elevation = Math.round(-180 * share(event.clientY - box.top, at.y, at.height));
    this.relit.build(this.settings);
    this.draw();
  }

  // The canvas's colour [r, g, b, a] at CSS pixels from its top left.
  pixel(x, y) {
    this.draw();
    const gl = this.renderer.getContext(), ratio = this.renderer.getPixelRatio(), rgba = new Uint8Array(4);
    gl.readPixels(Math.floor(x * ratio), gl.drawingBufferHeight - 1 - Math.floor(y * ratio), 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, rgba);
    return Array.from(rgba);
  }

  // The relit picture's colour over the picture's pixel in this column and row.
  shade(column, row) {
    this.show("relit");
    const { x, y, scale } = this.relit.place(this.canvas.clientWidth, this.canvas.clientHeight);
    return this.pixel(x + (column + 0.5) * scale, y + (row + 0.5) * scale);
  }

  // [x, y, z] of the picture's pixel in the OpenCV frame; null where it is not drawn.
  point(column, row) {
    const i = row * this.scene.width + column;
    return this.cloud.good[i] ? Array.from(this.cloud.points.subarray(3 * i, 3 * i + 3)) : null;
  }

  // Where a point of the OpenCV frame falls on the canvas, in CSS pixels.
  project(point) {
    this.show("cloud");
    this.cloud.world.updateMatrixWorld();
    const at = new THREE.Vector3(...point).applyMatrix4(this.cloud.frame.matrixWorld).project(this.camera);
    return [((at.x + 1) / 2) * this.canvas.clientWidth, ((1 - at.y) / 2) * this.canvas.clientHeight];
  }
}

function connect(viewer) {
  const number = { fov: Number, azimuth: Number, elevation: Number, ambient: Number, ratio: (t) => ratioOf(Number(t)) };
  for (const id of ["colour", "draw", "material"]) byId(id).addEventListener("change", (e) => viewer.change(id, e.target.value));
  for (const id of ["needles", "edges", "follow"]) byId(id).addEventListener("change", (e) => viewer.change(id, e.target.checked));
  for (const id in number) byId(id).addEventListener("input", (e) => viewer.change(id, number[id](e.target.value)));
  for (const button of document.querySelectorAll("[data-mode]")) button.addEventListener("click", () => viewer.show(button.dataset.mode));
  for (const button of document.querySelectorAll("[data-camera]")) button.addEventListener("click", () => viewer.look(button.dataset.camera));
  viewer.canvas.addEventListener("pointermove", (event) => viewer.pointTo(event));
  viewer.canvas.addEventListener("pointerdown", (event) => { viewer.atCamera = false; viewer.pointTo(event); });
  viewer.canvas.addEventListener("wheel", () => { viewer.atCamera = false; }, { passive: true });
  viewer.canvas.addEventListener("keydown", (event) => onCanvasKey(viewer, event));
  document.addEventListener("keydown", (event) => onKey(viewer, event));
}

function onCanvasKey(viewer, event) {
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  const zoom = { "+": 0.9, "=": 0.9, "-": 1 / 0.9 }[event.key];
  if (!arrows && !(zoom && viewer.mode === "cloud")) return;
  event.preventDefault();
  viewer.atCamera &&= viewer.mode !== "cloud";
  if (zoom) viewer.nearer(zoom);
  else if (viewer.mode === "cloud") viewer.turn(arrows[0] * STEP, arrows[1] * STEP);
  else for (const [name, by] of [["azimuth", arrows[0]], ["elevation", arrows[1]]]) {
    viewer.change(name, Math.min(90, Math.max(-90, viewer.settings[name] + 5 * by)));
  }
}

function onKey(viewer, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("select")) return;
  const camera = { o: "oblique", c: "front", s: "side", t: "top" }[event.key];
  if (event.key === "1") viewer.show("cloud");
  else if (event.key === "2") viewer.show("relit");
  else if (event.key === "n" && viewer.cloud && viewer.scene.normals) viewer.change("needles", !viewer.settings.needles);
  else if (camera && viewer.mode === "cloud") viewer.look(camera);
}

// What this scene has no map for cannot be chosen.
function close(scene) {
  const off = (selector) => { document.querySelector(selector).disabled = true; };
  if (!scene.depth) off("[data-mode=cloud]");
  if (!scene.normals) ["[data-mode=relit]", "#needles", "#colour [value=normals]"].forEach(off);
  if (!scene.albedo) off("#material [value=albedo]");
  byId("ratio-label").hidden = !scene.depth || scene.depth.kind === "metric";
}

async function start() {
  window.iloraViewer = { ready: false, error: "" };
  try {
    THREE.ColorManagement.enabled = false;
    const scene = await readScene();
    byId("title").textContent = scene.title;
    if (scene.title) document.title = scene.title;
    showAgreement(scene.agreement);
    showNotes(scene);
    close(scene);
    const viewer = new Viewer(scene);
    connect(viewer);
    viewer.draw();
    const names = ["change", "show", "look", "pixel", "shade", "point", "project"];
    for (const name of names) window.iloraViewer[name] = (...given) => viewer[name](...given);
    Object.defineProperty(window.iloraViewer, "settings", { get: () => ({ ...viewer.settings, mode: viewer.mode }) });
    Object.defineProperty(window.iloraViewer, "needles", { get: () => viewer.cloud?.needleCounts });
    window.iloraViewer.ready = true;
    document.documentElement.dataset.viewer = "ready";
  } catch (error) {
    window.iloraViewer.error = String(error);
    document.documentElement.dataset.viewer = "failed";
    byId("message").hidden = false;
    byId("message").textContent = `This browser could not draw the scene: ${error.message}. The view needs WebGL.`;
  }
}

start();
