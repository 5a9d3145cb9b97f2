/** Looks into a running program: what it holds once its garbage is collected, which its RSS tells only in the long run. */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Program } from "./programs.ts";

/** Has a program listen for us, at a port of its own. */
export const INSPECTED = { NODE_OPTIONS: "--inspect=127.0.0.1:0" };
/** A collection of some 100 MiB takes a tenth of a second. */
const ANSWER_MS = 30_000;
/** Buffers are given back behind a collection, by other threads. */
const GIVE_BACK_MS = 100;
const PACKAGE = join(import.meta.dirname, "../../package.json");
/** What glibc says of its heaps: fields of mallinfo2(3), in its order. */
const MALLOC = `(globalThis.soakMallinfo ??= (() => {
  const koffi = process.getBuiltinModule("node:module").createRequire(${JSON.stringify(PACKAGE)})("koffi");
  const names = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"];
  return koffi.load("libc.so.6").func("mallinfo2", koffi.struct(Object.fromEntries(names.map((name) => [name, "size_t"]))), []);
})())()`;

export interface Held {
  /** Of the main thread, after a full collection: V8's heap, and the buffers outside of it. */
  readonly liveBytes: number;
  /** What malloc has given out, to all threads: also shared memory and what libraries hold, without the holes in its heaps. */
  readonly nativeBytes: number;
  /** Timers that run, or are held by somebody; a program's own keep no process alive, so Node's list of resources lacks them. */
  readonly timers: number;
}

export class Inspector {
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #lastId = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => {
      const answer = JSON.parse(String(data)) as Answer;
      if (answer.id === undefined) return;
      this.#waiting.get(answer.id)?.(answer);
      this.#waiting.delete(answer.id);
    });
  }

  /** @param program started with {@link INSPECTED}. @throws Error when it does not listen */
  static async attach(program: Program): Promise<Inspector> {
    const address = /Debugger listening on (ws:\S+)/.exec(program.stderr)?.[1];
    if (address === undefined) throw new Error(`${program.name} does not say where its inspector listens`);
    const socket = new WebSocket(address);
    await new Promise((resolve, reject) => {
      socket.addEventListener("open", resolve, { once: true });
      socket.addEventListener("error", () => reject(new Error(`${program.name}'s inspector cannot be reached`)), { once: true });
    });
    return new Inspector(socket);
  }

  /** @throws Error when it does not answer */
  async collected(): Promise<Held> {
    // Twice: what finalizers let go of is garbage of the next one.
    for (let i = 0; i < 2; i++) await this.#call("HeapProfiler.collectGarbage");
    await sleep(GIVE_BACK_MS);
    const expression = `JSON.stringify({
      memory: process.memoryUsage(),
      malloc: ${MALLOC},
      timers: process.getBuiltinModule("node:v8").queryObjects(setTimeout(() => undefined, 0).unref().constructor),
    })`;
    const { result } = await this.#call("Runtime.evaluate", { expression, returnByValue: true });
    const { memory, malloc, timers } = JSON.parse(result?.result?.value ?? "") as Measured;
    return { liveBytes: memory.heapUsed + memory.external, nativeBytes: malloc.uordblks + malloc.hblkhd, timers };
  }

  close(): void {
    this.#socket.close();
  }

  #call(method: string, params: object = {}): Promise<Answer> {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${method}: no answer`)), ANSWER_MS);
      this.#waiting.set(id, (answer) => {
        clearTimeout(timer);
        if (answer.error === undefined) resolve(answer);
        else reject(new Error(`${method}: ${answer.error.message}`));
      });
      this.#socket.send(JSON.stringify({ id, method, params }));
    });
  }
}

interface Measured {
  readonly memory: NodeJS.MemoryUsage;
  /** Given out from its heaps, and in mappings of their own. */
  readonly malloc: { readonly uordblks: number; readonly hblkhd: number };
  readonly timers: number;
}

interface Answer {
  readonly id?: number;
  readonly error?: { readonly message: string };
  readonly result?: { readonly result?: { readonly value?: string } };
}
