// A small web site for the examples: it serves their files, and passes WebSockets at /topics on to a hub, as a
// site's own server or its proxy would. So the pages and the hub have one address.
//
//   node examples/site.mjs ws://127.0.0.1:9200 8080

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { connect } from "node:net";
import { extname, normalize } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css" };

async function file(request, response) {
  let path = normalize(decodeURIComponent(new URL(request.url, "http://site").pathname));
  if (path.endsWith("/")) path += "index.html";
  try {
    if (!/^\/(examples|dist)\//.test(path)) throw new Error("not a file of the examples");
    const body = await readFile(`${ROOT}${path}`);
    response.setHeader("content-type", TYPES[extname(path)] ?? "application/octet-stream");
    response.end(body);
  } catch {
    response.statusCode = 404;
    response.end("not found\n");
  }
}

/** Passes a WebSocket on to the hub. While the hub is down, the browser is refused, and comes again. */
function passOn(request, client, head, hub) {
  const server = connect(Number(hub.port), hub.hostname);
  const end = () => {
    client.destroy();
    server.destroy();
  };
  for (const socket of [client, server]) socket.on("error", end).on("close", end);
  server.on("connect", () => {
    const lines = [`${request.method} ${request.url} HTTP/1.1`];
    for (let at = 0; at < request.rawHeaders.length; at += 2)
      lines.push(`${request.rawHeaders[at]}: ${request.rawHeaders[at + 1]}`);
    server.write(`${lines.join("\r\n")}\r\n\r\n`);
    server.write(head);
    client.pipe(server).pipe(client);
  });
}

/** Serves the examples in front of a hub. Resolves with its address and how to stop it. */
export async function serveSite(hubUrl, port = 0) {
  const hub = new URL(hubUrl);
  const sockets = new Set();
  const server = createServer(file);
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  server.on("upgrade", (request, client, head) => passOn(request, client, head, hub));
  await new Promise((resolve) => {
    server.listen(port, "127.0.0.1", resolve);
  });
  const stop = () => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return { url: `http://127.0.0.1:${server.address().port}`, stop };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [, , hub = "ws://127.0.0.1:9200", port = "8080"] = process.argv;
  const { url } = await serveSite(hub, Number(port));
  console.log(`chart:  ${url}/examples/chart/\nanswer: ${url}/examples/answer/`);
}
