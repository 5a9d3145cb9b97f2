/** What users do to a site in a soak: everything that programs are there for, and what they should survive. */
import { createHash } from "node:crypto";
import { rmSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import type { Prng } from "../../src/base/prng.ts";
import { Program } from "./programs.ts";
import type { SoakImage, SoakRegistry } from "./registry.ts";

export interface SoakHost {
  readonly mirrorPort: number;
  readonly socket: string;
}

export interface LoadDeps {
  readonly registry: SoakRegistry;
  readonly registryPort: number;
  readonly random: Prng;
  /** Hosts that are up now. */
  readonly hosts: () => readonly SoakHost[];
  readonly folder: string;
}

type Act = "pulls" | "oldPulls" | "ranges" | "cancels" | "locals" | "refusals" | "dfgets";
/** Of a hundred. */
const SHARES: Readonly<Record<Act, number>> = { pulls: 40, oldPulls: 20, ranges: 8, cancels: 12, locals: 10, refusals: 6, dfgets: 4 };
const ACTS = Object.entries(SHARES).flatMap(([act, share]) => Array<Act>(share).fill(act as Act));

export class Load {
  readonly counts: Record<Act | "failures" | "wrongBytes", number> = {
    pulls: 0, oldPulls: 0, ranges: 0, cancels: 0, locals: 0, refusals: 0, dfgets: 0, failures: 0, wrongBytes: 0,
  };
  /** The last failures, in words. */
  readonly failures: string[] = [];
  readonly #deps: LoadDeps;
  /** When each task was last asked for; the oldest first. */
  readonly #asked = new Map<string, number>();
  #newest = 0;

  constructor(deps: LoadDeps) {
    this.#deps = deps;
  }

  /** Does one thing. Never rejects: what fails is counted. */
  async act(): Promise<void> {
    const act = ACTS[this.#deps.random.below(ACTS.length)] as Act;
    this.counts[act]++;
    try {
      await this.#do(act);
    } catch (thrown) {
      this.counts.failures++;
      this.failures.push(`${act}: ${String(thrown)}`);
      if (this.failures.length > 20) this.failures.shift();
    }
  }

  /** Tasks that somebody has asked for within the last `forMs`. */
  askedCount(forMs: number): number {
    const sinceMs = performance.now() - forMs;
    return [...this.#asked.values()].filter((askedMs) => askedMs >= sinceMs).length;
  }

  /** @returns `task` */
  #asks(task: string): string {
    this.#asked.set(task, performance.now());
    return task;
  }

  async #do(act: Act): Promise<void> {
    const { random, registry, registryPort } = this.#deps;
    const hosts = this.#deps.hosts();
    const host = hosts[random.below(hosts.length)] as SoakHost;
    switch (act) {
      case "pulls": {
        const image = registry.image(++this.#newest);
        await Promise.all(hosts.map((each) => this.#pull(each, image)));
        return;
      }
      case "oldPulls":
        return this.#pull(host, this.#oldImage());
      case "ranges": {
        const { digest } = this.#oldImage();
        const { status, body } = await get(host.mirrorPort, this.#asks(`/v2/reg.soak/soak/app/blobs/${digest}`), { range: "bytes=1000-50999" });
        if (status !== 206 || body.length !== 50_000) throw new Error(`a range is ${status} with ${body.length} bytes`);
        return;
      }
      case "cancels": {
        const { digest } = registry.image(++this.#newest);
        return hangUp(host.mirrorPort, this.#asks(`/v2/reg.soak/soak/app/blobs/${digest}`));
      }
      case "locals":
        return this.#local(host, this.#asks(`http://127.0.0.1:${registryPort}/files/${++this.#newest}`));
      case "refusals": {
        const wrong = `sha256:${createHash("sha256").update(String(random.below(1e9))).digest("hex")}`;
        const { status } = await get(host.mirrorPort, `/v2/reg.soak/soak/app/blobs/${wrong}`);
        if (status !== 404) throw new Error(`an unknown blob is ${status}`);
        return;
      }
      case "dfgets": {
        const number = ++this.#newest;
        const url = this.#asks(`http://127.0.0.1:${registryPort}/files/${number}`);
        const output = join(this.#deps.folder, `dfget-${number}.out`);
        const program = new Program("dfget", "dfget", ["--socket", host.socket, url, "-O", output, "-q"], { XDG_CACHE_HOME: this.#deps.folder });
        const { code, stderr } = await program.ended;
        rmSync(output, { force: true });
        if (code !== 0) throw new Error(`dfget: exit ${code} ${stderr.slice(-200)}`);
      }
    }
  }

  #oldImage(): SoakImage {
    const { random, registry } = this.#deps;
    return registry.image(Math.max(1, this.#newest - random.below(150)));
  }

  async #pull({ mirrorPort }: SoakHost, image: SoakImage): Promise<void> {
    const manifest = await get(mirrorPort, this.#asks(`/v2/reg.soak/soak/app/manifests/${image.tag}`));
    if (manifest.status !== 200) throw new Error(`a manifest is ${manifest.status}`);
    const { status, body } = await get(mirrorPort, this.#asks(`/v2/reg.soak/soak/app/blobs/${image.digest}`));
    if (status !== 200) throw new Error(`a blob is ${status}`);
    if (`sha256:${createHash("sha256").update(body).digest("hex")}` !== image.digest) this.counts.wrongBytes++;
  }

  /** Over the local API, every other time slowly and not to the end. */
  #local({ socket }: SoakHost, url: string): Promise<void> {
    const breaksOff = this.#newest % 2 === 0;
    const body = JSON.stringify({
      requestId: `soak-${this.#newest}`,
      source: { url, headers: {} },
      backToSource: true,
      ...(breaksOff ? { limitBytesPerSecond: 200_000 } : {}),
    });
    return new Promise((resolve, reject) => {
      const asked = request({ socketPath: socket, method: "POST", path: "/v1/content", agent: false }, (response) => {
        response.on("data", () => {
          if (!breaksOff) return;
          asked.destroy();
          resolve();
        });
        response.on("error", reject).on("end", resolve);
      });
      asked.on("error", reject).end(body);
    });
  }
}

interface Answer {
  readonly status: number;
  readonly body: Buffer;
}

function get(port: number, path: string, headers: Record<string, string> = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const accept = "application/vnd.oci.image.manifest.v1+json, */*";
    request({ host: "127.0.0.1", port, path, agent: false, headers: { accept, ...headers } }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks) }));
    }).on("error", reject).end();
  });
}

/** Asks, and goes away with the first byte. */
function hangUp(port: number, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: "127.0.0.1", port, path, agent: false }, (response) => {
      response.once("data", () => asked.destroy());
      response.once("close", resolve);
    });
    asked.on("error", reject).end();
  });
}
