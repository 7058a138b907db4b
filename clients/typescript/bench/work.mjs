// One measurement, in Node or in a page: messages of one size in one direction, over a session or over a bare
// WebSocket, with the same checks. Returns messages per second.

/** The index of a packet, and its length, must be the next. */
function check(data, index, size) {
  if (data.length !== size) throw new Error(`a packet of ${data.length} bytes`);
  const found = (data[4] << 24) | (data[5] << 16) | (data[6] << 8) | data[7];
  if (found !== index) throw new Error(`packet ${found} instead of ${index}`);
}

function fill(data, index) {
  data[4] = index >>> 24;
  data[5] = index >>> 16;
  data[6] = index >>> 8;
  data[7] = index;
}

/** `unstall`: the package. `WebSocket`: the class for both. `how`: session, batches, bare. */
export async function measure({ unstall, WebSocket, url, how, direction, size, count }) {
  const work = how === "bare" ? bare : session;
  return work({ unstall, WebSocket, url, how, direction, size, count });
}

async function session({ unstall, WebSocket, url, how, direction, size, count }) {
  const over = await unstall.connect(`${url}/${direction === "down" ? "packets" : "sink"}`, {
    WebSocket,
  });
  const begin = performance.now();
  if (direction === "down") {
    await over.send(JSON.stringify({ count, size }));
    let index = 0;
    if (how === "batches") {
      for await (const batch of over.batches()) {
        for (const data of batch) if (index < count) check(data, index++, size);
        if (index === count) break;
      }
    } else {
      for await (const data of over) {
        check(data, index++, size);
        if (index === count) break;
      }
    }
  } else {
    const data = new Uint8Array(size);
    for (let index = 0; index < count; index++) {
      fill(data, index);
      await over.send(data);
    }
    await over.send('{"report":true}');
    await over.receive();
  }
  const rate = count / ((performance.now() - begin) / 1000);
  await over.close();
  return rate;
}

async function bare({ WebSocket, url, direction, size, count }) {
  const socket = new WebSocket(`${url}/${direction === "down" ? "packets" : "sink"}`);
  if (!socket.on) socket.binaryType = "arraybuffer";
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = reject;
  });
  const begin = performance.now();
  if (direction === "down") {
    let index = 0;
    const done = new Promise((resolve, reject) => {
      const receive = (data) => {
        if (index === count) return;
        try {
          check(data, index++, size);
        } catch (error) {
          reject(error);
        }
        if (index === count) resolve();
      };
      // The package ws is faster with its own events and buffers.
      if (socket.on) socket.on("message", receive);
      else socket.onmessage = (event) => receive(new Uint8Array(event.data));
    });
    socket.send(JSON.stringify({ count, size }));
    await done;
  } else {
    const answered = new Promise((resolve) => {
      socket.onmessage = resolve;
    });
    const data = new Uint8Array(size);
    for (let index = 0; index < count; index++) {
      fill(data, index);
      socket.send(data);
      // As much as a session gives its WebSocket at most.
      while (socket.bufferedAmount > 4 << 20) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    socket.send('{"report":true}');
    await answered;
  }
  const rate = count / ((performance.now() - begin) / 1000);
  socket.close();
  return rate;
}
