"use strict";
// The scene in three dimensions. Everything lies in `frame`, in OpenCV coordinates; half a turn about x takes it to
// three.js, whose y points up and whose z points to the viewer.

const OUT = 0x2fb5c9, LEANING = 0xf0a020, INTO = 0xe5484d; // needles: along the depth's normal, over 45° and over 90° from it

const POINT_VERTEX = `
  attribute float footprint; attribute vec3 tint; uniform float pixels; varying vec3 seen;
  void main() {
    seen = tint;
    vec4 at = modelViewMatrix * vec4(position, 1.0);
    gl_Position = projectionMatrix * at;
    gl_PointSize = max(1.5, 1.25 * footprint * pixels / -at.z);
  }`;
const POINT_FRAGMENT = "varying vec3 seen; void main() { gl_FragColor = vec4(seen, 1.0); }";

class Cloud {
  constructor(scene) {
    this.scene = scene;
    this.world = new THREE.Scene();
    this.frame = new THREE.Group();
    this.frame.rotation.x = Math.PI;
    this.world.add(this.frame);
    this.material = new THREE.ShaderMaterial({
      vertexShader: POINT_VERTEX, fragmentShader: POINT_FRAGMENT, side: THREE.DoubleSide, uniforms: { pixels: { value: 1 } },
    });
    this.parts = [];
  }

  // Rebuild from the settings {fov, ratio, edges, draw, colour, needles}.
  build(settings) {
    for (const part of this.parts) { this.frame.remove(part); part.geometry.dispose(); }
    this.parts = [];
    const { scene } = this;
    this.z = depthAlongZ(scene, settings.ratio);
    this.points = unproject(scene, this.z, settings.fov);
    this.good = kept(scene, this.z, settings.fov, settings.edges);
    this.measure();
    this.add(settings.draw === "points" ? this.cloud(settings) : this.surface(settings));
    if (settings.needles && scene.normals) this.needles();
    this.add(this.cameraOutline(settings.fov));
    this.add(this.ground());
  }

  add(part) {
    this.parts.push(part);
    this.frame.add(part);
  }

  known() {
    const chosen = [];
    for (let i = 0; i < this.scene.count; i++) if (this.good[i]) chosen.push(i);
    if (chosen.length) return chosen;
    for (let i = 0; i < this.scene.count; i++) if (this.z[i] > 0) chosen.push(i);
    return chosen;
  }

  measure() {
    const chosen = this.known();
    const along = (axis) => chosen.map((i) => this.points[3 * i + axis]);
    this.bounds = [0, 1, 2].map((axis) => [0.01, 0.5, 0.99].map((q) => quantile(along(axis), q)));
    this.centre = this.bounds.map(([low, , high]) => (low + high) / 2);
    this.radius = Math.hypot(...this.bounds.map(([low, , high]) => (high - low) / 2)) || 1;
    this.lowest = quantile(along(1), 0.995);
    this.cell = niceLength(Math.max(...this.bounds.map(([low, , high]) => high - low)) / 4 || 1);
  }

  tints(colour) {
    const { scene } = this, [near, , far] = this.bounds[2];
    const tint = new Float32Array(3 * scene.count);
    for (let i = 0; i < scene.count; i++) {
      const n = colour === "normals" ? normalAt(scene, i) : null;
      const grey = Math.min(1, Math.max(0, 1 - (this.z[i] - near) / (far - near || 1)));
      for (let c = 0; c < 3; c++) {
        const own = colour === "normals" ? (n ? (n[c] + 1) / 2 : 0.5) : grey;
        tint[3 * i + c] = colour === "picture" ? scene.picture[3 * i + c] / 255 : own;
      }
    }
    return tint;
  }

  geometry(settings) {
    const geometry = new THREE.BufferGeometry(), f = focalPx(this.scene, settings.fov);
    const points = this.points.map((x) => (Number.isFinite(x) ? x : 0));
    geometry.setAttribute("position", new THREE.BufferAttribute(points, 3));
    geometry.setAttribute("tint", new THREE.BufferAttribute(this.tints(settings.colour), 3));
    geometry.setAttribute("footprint", new THREE.BufferAttribute(this.z.map((z) => (z > 0 ? z / f : 0)), 1));
    return geometry;
  }

  cloud(settings) {
    const geometry = this.geometry(settings);
    const index = [];
    for (let i = 0; i < this.scene.count; i++) if (this.good[i]) index.push(i);
    geometry.setIndex(index);
    return new THREE.Points(geometry, this.material);
  }

  surface(settings) {
    const geometry = this.geometry(settings), { width, height } = this.scene, index = [];
    const triangle = (a, b, c) => { if (this.good[a] && this.good[b] && this.good[c]) index.push(a, b, c); };
    for (let v = 0; v + 1 < height; v++) {
      for (let u = 0; u + 1 < width; u++) {
        const i = v * width + u;
        triangle(i, i + width, i + 1);
        triangle(i + 1, i + width, i + width + 1);
      }
    }
    geometry.setIndex(index);
    return new THREE.Mesh(geometry, this.material);
  }

  // The depth's own normal times its length: the cross product of central differences; null beside unknown pixels.
  derivedNormal(u, v) {
    const { width, height } = this.scene, i = v * width + u, p = this.points;
    if (u < 1 || v < 1 || u + 1 >= width || v + 1 >= height) return null;
    if (![i - 1, i + 1, i - width, i + width].every((j) => this.good[j])) return null;
    const [a, b] = [[i - width, i + width], [i - 1, i + 1]].map(([j, k]) => [0, 1, 2].map((axis) => p[3 * k + axis] - p[3 * j + axis]));
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  }

  // Cones along the given normals. Those that go into the surface that depth draws are red, and shine through it.
  needles() {
    const { scene } = this, step = Math.max(1, Math.round(Math.max(scene.width, scene.height) / 26));
    const out = [], leaning = [], into = [];
    for (let v = step >> 1; v < scene.height; v += step) {
      for (let u = step >> 1; u < scene.width; u += step) {
        const i = v * scene.width + u, n = this.good[i] ? normalAt(scene, i) : null;
        if (!n) continue;
        const p = [0, 1, 2].map((axis) => this.points[3 * i + axis]);
        const facing = this.derivedNormal(u, v);
        if (!facing) continue;
        const cosine = (n[0] * facing[0] + n[1] * facing[1] + n[2] * facing[2]) / Math.hypot(...facing);
        (cosine < 0 ? into : cosine < Math.SQRT1_2 ? leaning : out).push([p, n]);
      }
    }
    this.needleCounts = { out: out.length, leaning: leaning.length, into: into.length };
    if (out.length) this.add(this.cones(out, OUT, true));
    if (leaning.length) this.add(this.cones(leaning, LEANING, true));
    if (into.length) this.add(this.cones(into, INTO, false));
  }

  cones(needles, colour, hidden) {
    const length = this.radius * 0.085;
    const cone = new THREE.ConeGeometry(length * 0.11, length, 5).translate(0, length / 2, 0);
    const material = new THREE.MeshBasicMaterial({ color: colour, depthTest: hidden, transparent: !hidden, opacity: hidden ? 1 : 0.8 });
    const mesh = new THREE.InstancedMesh(cone, material, needles.length);
    const up = new THREE.Vector3(0, 1, 0), one = new THREE.Vector3(1, 1, 1);
    needles.forEach(([p, n], k) => {
      const turn = new THREE.Quaternion().setFromUnitVectors(up, new THREE.Vector3(...n));
      mesh.setMatrixAt(k, new THREE.Matrix4().compose(new THREE.Vector3(...p), turn, one));
    });
    mesh.frustumCulled = false;
    mesh.renderOrder = hidden ? 0 : 1;
    return mesh;
  }

  lines(corners, colour) {
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(corners.flat()), 3));
    return new THREE.LineSegments(geometry, new THREE.LineBasicMaterial({ color: colour }));
  }

  // The camera that took the picture: its centre and its frame at half the nearest depth.
  cameraOutline(fovDeg) {
    const { width, height } = this.scene, d = this.bounds[2][0] * 0.5, f = focalPx(this.scene, fovDeg);
    const [x, y] = [(width / 2 / f) * d, (height / 2 / f) * d];
    const [a, b, c, e] = [[-x, -y, d], [x, -y, d], [x, y, d], [-x, y, d]], o = [0, 0, 0];
    return this.lines([a, b, b, c, c, e, e, a, o, a, o, b, o, c, o, e], 0x8b95a3);
  }

  // A grid below the lowest points; its cells have a round length.
  ground() {
    const [x, , z] = this.bounds, { cell } = this;
    const ends = [x, z].map(([low, , high]) => [Math.floor(low / cell) * cell, Math.ceil(high / cell) * cell]);
    const corners = [];
    const near = Math.min(0, ends[1][0]);
    for (let at = ends[0][0]; at <= ends[0][1] + cell / 2; at += cell) corners.push([at, this.lowest, near], [at, this.lowest, ends[1][1]]);
    for (let at = near; at <= ends[1][1] + cell / 2; at += cell) corners.push([ends[0][0], this.lowest, at], [ends[0][1], this.lowest, at]);
    return this.lines(corners, 0x9aa4b2);
  }
}
