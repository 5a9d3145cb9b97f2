import { randomUUID } from "node:crypto";
import { type IncomingMessage, request } from "node:http";

/** How a request of a dfdaemon's local API ended. */
export interface Fetched {
  /** The error's code; undefined when all of the file came. */
  readonly code: string | undefined;
  readonly message: string;
  readonly content: Buffer;
  /** The origin's headers, as the supernode relayed them. */
  readonly headers: Readonly<Record<string, string>>;
  readonly taskId: string | undefined;
}

/** What is asked for, but its `requestId`. */
export interface Wanted {
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly digest?: string;
  readonly filteredQueryParameters?: readonly string[];
  /** Takes the body in at this rate. */
  readonly bytesPerSecond?: number;
}

/** Downloads through a dfdaemon as dfget does, without a process for each. Never from the origin directly. */
export async function fetchThrough(socketPath: string, { bytesPerSecond, ...source }: Wanted): Promise<Fetched> {
  const requestId = randomUUID();
  const body = JSON.stringify({ requestId, source: { headers: {}, ...source }, backToSource: false });
  const response = await ask(socketPath, "POST", "/v1/content", body);
  const chunks: Buffer[] = [];
  let isCut = false;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      if (bytesPerSecond !== undefined) await new Promise((go) => setTimeout(go, (chunk.length / bytesPerSecond) * 1000));
    }
  } catch {
    isCut = true;
  }
  const content = Buffer.concat(chunks);
  const info = response.headers["dragonfly-info"];
  const headers = info === undefined ? {} : (JSON.parse(String(info)) as { headers: Record<string, string> }).headers;
  const taskId = response.headers["dragonfly-task-id"];
  const failure = isCut ? await whyFailed(socketPath, requestId) : response.statusCode === 200 ? undefined : failureIn(content);
  return { code: failure?.code, message: failure?.message ?? "", content, headers, taskId: taskId === undefined ? undefined : String(taskId) };
}

interface Failure {
  readonly code: string;
  readonly message: string;
}

async function whyFailed(socketPath: string, requestId: string): Promise<Failure> {
  const response = await ask(socketPath, "GET", `/v1/requests/${requestId}`);
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  const { error } = JSON.parse(Buffer.concat(chunks).toString()) as { error?: Failure };
  return error ?? { code: "CUT", message: "the daemon broke off and says no reason" };
}

function failureIn(body: Buffer): Failure {
  return JSON.parse(body.toString()) as Failure;
}

function ask(socketPath: string, method: string, path: string, body?: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, method, path, headers: { host: "dfdaemon" }, agent: false, timeout: 60_000 }, resolve);
    asked.on("error", reject);
    asked.on("timeout", () => asked.destroy(new Error(`${path} was not answered`)));
    asked.end(body);
  });
}
