// The features of all places of a run, and how similar they are to one of them.

// The leading components over the length in all channels, a byte (-127 to 127) each:
// [image, row, column, d]. The product of two follows the cosine of all channels.
class Places {
  constructor({ d, h, w }, base64) {
    Object.assign(this, { d, h, w });
    const text = atob(base64);
    this.bytes = new Int8Array(text.length);
    for (let at = 0; at < text.length; at++) this.bytes[at] = text.charCodeAt(at);
  }

  // The feature of a place.
  at(image, row, column) {
    const from = ((image * this.h + row) * this.w + column) * this.d;
    return this.bytes.subarray(from, from + this.d);
  }

  // The similarity of each place of an image to a feature, row by row. A place is like itself, but
  // the product of its known components is not all of it.
  similarities(image, feature) {
    const { d, h, w, bytes } = this;
    const cosines = new Float32Array(h * w);
    let from = image * h * w * d;
    for (let place = 0; place < cosines.length; place++) {
      let product = 0;
      for (let at = 0; at < d; at++) product += bytes[from + at] * feature[at];
      // Rounding of the bytes may leave the range.
      const cosine = Math.min(1, Math.max(-1, product / (127 * 127)));
      cosines[place] = bytes.byteOffset + from === feature.byteOffset ? 1 : cosine;
      from += d;
    }
    return cosines;
  }

  // The share of an image's places that are at least so similar, and the highest similarity.
  shareOf(image, feature, least) {
    const cosines = this.similarities(image, feature);
    let count = 0;
    let highest = -1;
    for (const cosine of cosines) {
      if (cosine >= least) count += 1;
      if (cosine > highest) highest = cosine;
    }
    return { share: count / cosines.length, highest };
  }
}

// What is not similar is covered, a pixel for each place; the browser smooths the edges.
const COVER = [24, 26, 30, 210];

function paintCover(canvas, places, image, feature, least) {
  const { h, w } = places;
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(w, h);
  places.similarities(image, feature).forEach((cosine, place) => {
    if (cosine >= least) pixels.data.set([COVER[0], COVER[1], COVER[2], 0], 4 * place);
    else pixels.data.set(COVER, 4 * place);
  });
  context.putImageData(pixels, 0, 0);
}
