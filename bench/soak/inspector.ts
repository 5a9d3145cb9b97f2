/** Looks into a running program: what it holds once its garbage is collected, which its RSS tells only in the long run. */
import type { Program } from "./programs.ts";

/** Has a program listen for us, at a port of its own. */
export const INSPECTED = { NODE_OPTIONS: "--inspect=127.0.0.1:0" };
/** A collection of some 100 MiB takes a tenth of a second. */
const ANSWER_MS = 30_000;

export interface Held {
  /** Of the main thread, after a full collection: V8's heap, and the buffers outside of it. */
  readonly liveBytes: number;
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
    const expression = `JSON.stringify({
      memory: process.memoryUsage(),
      timers: process.getBuiltinModule("node:v8").queryObjects(setTimeout(() => undefined, 0).unref().constructor),
    })`;
    const { result } = await this.#call("Runtime.evaluate", { expression, returnByValue: true });
    const { memory, timers } = JSON.parse(result?.result?.value ?? "") as { memory: NodeJS.MemoryUsage; timers: number };
    return { liveBytes: memory.heapUsed + memory.external, timers };
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

interface Answer {
  readonly id?: number;
  readonly error?: { readonly message: string };
  readonly result?: { readonly result?: { readonly value?: string } };
}
