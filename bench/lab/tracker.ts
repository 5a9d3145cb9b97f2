/** A BitTorrent tracker for one torrent: everybody gets everybody. Run as a program, `tracker.ts PORT`. */
import { createServer } from "node:http";
import { bencode } from "./torrent.ts";

/** Short, so that those who announced first soon learn of those who came after. */
const INTERVAL_SECONDS = 2;

const peers = new Map<string, Buffer>();

createServer((request, response) => {
  const query = new URL(request.url ?? "/", "http://tracker").searchParams;
  const address = (request.socket.remoteAddress ?? "").replace("::ffff:", "");
  const port = Number(query.get("port"));
  const key = `${address}:${port}`;
  if (query.get("event") === "stopped") peers.delete(key);
  else peers.set(key, Buffer.from([...address.split(".").map(Number), port >> 8, port & 255]));
  if (query.get("left") === "0") console.log(`seed ${key}`);
  const others = [...peers].filter(([other]) => other !== key).map(([, compact]) => compact);
  response.end(bencode({ interval: INTERVAL_SECONDS, "min interval": INTERVAL_SECONDS, peers: Buffer.concat(others) }));
}).listen(Number(process.argv[2]), "0.0.0.0", () => console.log("ready"));
