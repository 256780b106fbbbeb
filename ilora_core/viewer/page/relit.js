"use strict";
// The picture in a light of one's own: material × (ambient + (1 − ambient) max(0, n·l)), in linear light; l points to the
// light, in the OpenCV frame: from the left is −x, from above −y, from the camera −z.

const RELIT_VERTEX = "varying vec2 at; void main() { at = vec2(uv.x, 1.0 - uv.y); gl_Position = vec4(position.xy, 0.0, 1.0); }";
const RELIT_FRAGMENT = `
  uniform sampler2D normals, material; uniform vec3 toLight; uniform float ambient; uniform bool clay; varying vec2 at;
  vec3 linear(vec3 c) { return mix(c / 12.92, pow((max(c, 0.04045) + 0.055) / 1.055, vec3(2.4)), step(0.04045, c)); }
  vec3 encoded(vec3 c) { return mix(c * 12.92, 1.055 * pow(max(c, 0.0031308), vec3(1.0 / 2.4)) - 0.055, step(0.0031308, c)); }
  void main() {
    vec4 stored = texture2D(normals, at);
    vec3 base = clay ? vec3(0.8) : linear(texture2D(material, at).rgb);
    vec3 n = stored.rgb * 255.0 - 128.0;
    float lambert = stored.a < 0.5 ? 0.0 : max(0.0, dot(n / max(length(n), 1e-6), toLight));
    gl_FragColor = vec4(encoded(clamp(base * (ambient + (1.0 - ambient) * lambert), 0.0, 1.0)), 1.0);
  }`;

function lightDirection(azimuthDeg, elevationDeg) {
  const [a, e] = [azimuthDeg, elevationDeg].map((degrees) => (degrees * Math.PI) / 180);
  return [Math.sin(a) * Math.cos(e), -Math.sin(e), -Math.cos(a) * Math.cos(e)];
}

class Relit {
  constructor(scene) {
    this.scene = scene;
    this.world = new THREE.Scene();
    this.camera = new THREE.OrthographicCamera();
    const texture = (rgb) => (rgb ? this.texture(rgb) : null);
    this.textures = { picture: texture(scene.picture), albedo: texture(scene.albedo) };
    this.material = new THREE.ShaderMaterial({
      vertexShader: RELIT_VERTEX, fragmentShader: RELIT_FRAGMENT, depthTest: false,
      uniforms: {
        normals: { value: this.texture(scene.normals) }, material: { value: null },
        toLight: { value: new THREE.Vector3() }, ambient: { value: 0 }, clay: { value: false },
      },
    });
    const plane = new THREE.Mesh(new THREE.PlaneGeometry(2, 2), this.material);
    plane.frustumCulled = false;
    this.world.add(plane);
  }

  // Rows from the top, as stored; alpha says which pixels are valid, and keeps rows aligned for any width.
  texture(rgb) {
    const rgba = new Uint8Array(4 * this.scene.count);
    for (let i = 0; i < this.scene.count; i++) {
      rgba.set(rgb.subarray(3 * i, 3 * i + 3), 4 * i);
      rgba[4 * i + 3] = rgb === this.scene.normals && !rgb[3 * i] ? 0 : 255;
    }
    const texture = new THREE.DataTexture(rgba, this.scene.width, this.scene.height);
    texture.needsUpdate = true;
    return texture;
  }

  // From the settings {material, azimuth, elevation, ambient}.
  build(settings) {
    const uniforms = this.material.uniforms;
    uniforms.clay.value = settings.material === "clay";
    uniforms.material.value = this.textures[settings.material] ?? this.textures.picture;
    uniforms.toLight.value.set(...lightDirection(settings.azimuth, settings.elevation));
    uniforms.ambient.value = settings.ambient;
  }

  // Where the picture lies on a canvas of this size: as large as fits, centred, in CSS pixels from the top left.
  place(width, height) {
    const scale = Math.min(width / this.scene.width, height / this.scene.height);
    const [w, h] = [this.scene.width * scale, this.scene.height * scale];
    return { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h, scale };
  }
}
