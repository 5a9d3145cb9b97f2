/** What the tests of this folder talk to: an HTTP server that behaves as badly as its handler. No tests of its own. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Readable } from "node:stream";
import type { TestContext } from "node:test";
import { AppError } from "../base/errors.ts";
import type { ErrorCode } from "../base/errors.ts";
import { HttpOrigin } from "./http-origin.ts";
import type { HttpOriginOptions } from "./http-origin.ts";
import type { OriginRequest } from "./origin.ts";

export interface LocalServer {
  /** `http://127.0.0.1:port`, another port for each server: another origin. */
  readonly base: string;
  /** Every request so far, in order. */
  readonly seen: IncomingMessage[];
}

export async function serve(
  t: TestContext,
  handler: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<LocalServer> {
  const seen: IncomingMessage[] = [];
  const listener: RequestListener = (request, response) => {
    seen.push(request);
    handler(request, response);
  };
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { base: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen };
}

export function httpOrigin(t: TestContext, options: HttpOriginOptions = {}): HttpOrigin {
  const origin = new HttpOrigin(options);
  t.after(() => origin.close());
  return origin;
}

export function ask(url: string, headers: Record<string, string> = {}): OriginRequest {
  return { url, headers };
}

export function idle(): AbortSignal {
  return new AbortController().signal;
}

export async function textOf(body: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of body as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}

/** The AppError with which `promise` fails, its code checked. */
export async function failure(promise: Promise<unknown>, code: ErrorCode): Promise<AppError> {
  const error: unknown = await promise.then(
    () => assert.fail(`expected ${code}, but it succeeded`),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof AppError, `expected an AppError ${code}, got ${String(error)}`);
  assert.equal(error.code, code, error.message);
  return error;
}
