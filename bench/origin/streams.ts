/**
 * Four streams of one file over a long way, with HTTP/1.1 and with HTTP/2 (docs/decisions.md, 58).
 *
 *   node bench/origin/streams.ts [--runs 5]
 *
 * undici, as src/origin has it, reads from a server of Node's that speaks both, behind a relay that holds each byte for 20 ms each way. Needs openssl.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createSecureServer } from "node:http2";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Agent } from "undici";
import { readOptions } from "../command-line.ts";

const MIB = 1024 ** 2;
const CONTENT = Buffer.alloc(8 * MIB, 7);
const STREAM_COUNT = 4;
const ONE_WAY_MS = 20;

const options = readOptions(import.meta.filename, { runs: { type: "string", default: "5" } });

async function listen(server: Pick<Server, "listen" | "address">): Promise<number> {
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

const directory = mkdtempSync(join(tmpdir(), "dragonfly-streams-"));
const [keyFile, certFile] = [join(directory, "key.pem"), join(directory, "cert.pem")];
const request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost".split(" ");
execFileSync("openssl", [...request, "-keyout", keyFile, "-out", certFile], { stdio: "ignore" });
const cert = readFileSync(certFile, "utf8");
const server = createSecureServer({ key: readFileSync(keyFile, "utf8"), cert, allowHTTP1: true }, ({ headers }, response) => {
  const [, start = 0, end = 0] = (/bytes=(\d+)-(\d+)/.exec(headers.range ?? "") ?? []).map(Number);
  response.writeHead(206, { "content-length": end + 1 - start });
  response.end(CONTENT.subarray(start, end + 1));
});
rmSync(directory, { recursive: true });
const serverPort = await listen(server);
const relay = createServer((near) => {
  const far = connect(serverPort, "127.0.0.1");
  for (const [from, to] of [[near, far], [far, near]] as const) {
    from.setNoDelay(true);
    from.on("error", () => to.destroy()).on("data", (bytes) => setTimeout(() => to.write(bytes), ONE_WAY_MS)).on("close", () => setTimeout(() => to.end(), ONE_WAY_MS));
  }
});
const origin = `https://localhost:${await listen(relay)}`;

async function mibPerSecond(allowH2: boolean): Promise<number> {
  const agent = new Agent({ allowH2, connect: { ca: cert } });
  const partBytes = CONTENT.length / STREAM_COUNT;
  const startMs = performance.now();
  await Promise.all(Array.from({ length: STREAM_COUNT }, async (_, n) => {
    const { body } = await agent.request({ origin, path: "/file", method: "GET", headers: { range: `bytes=${n * partBytes}-${(n + 1) * partBytes - 1}` } });
    for await (const _chunk of body) continue;
  }));
  const seconds = (performance.now() - startMs) / 1000;
  await agent.destroy();
  return CONTENT.length / MIB / seconds;
}

const rates = new Map<string, number[]>([["HTTP/1.1", []], ["HTTP/2", []]]);
for (let run = 0; run < Number(options.runs); run++) for (const [name, all] of rates) all.push(await mibPerSecond(name === "HTTP/2"));
for (const [name, all] of rates) {
  const sorted = all.toSorted((a, b) => a - b);
  const at = (index: number): string => (sorted[index] as number).toFixed(1);
  process.stdout.write(`${name.padEnd(8)}  ${at(Math.floor(sorted.length / 2))} MiB/s (${at(0)} – ${at(sorted.length - 1)})\n`);
}
process.exit();
