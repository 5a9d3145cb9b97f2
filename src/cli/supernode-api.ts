/** The REST API of a running supernode, for the subcommands that ask it something. */
import { Agent, fetch } from "undici";
import { z } from "zod";
import { AppError, isErrorCode, toAppError } from "../base/errors.ts";
import { isPlainRefusal } from "../peer/membership/plain-refusal.ts";
import type { SiteTls } from "../peer/membership/site-tls.ts";
import { plainRefused, tlsFailure } from "../peer/membership/tls-connection.ts";
import { printAddress } from "./addresses.ts";

const errorSchema = z.object({ code: z.string(), message: z.string() });

export interface SupernodeApiPlace {
  readonly host: string;
  readonly port: number;
}

export class SupernodeApi {
  /** Of the API, without a path. */
  readonly #address: string;
  readonly #token: string | undefined;
  readonly #agent: Agent | undefined;

  /**
   * @param token the site's; not needed on the supernode's own machine
   * @param tls undefined: in the clear
   */
  constructor({ host, port }: SupernodeApiPlace, token: string | undefined, tls: SiteTls | undefined) {
    this.#address = `http${tls === undefined ? "" : "s"}://${printAddress({ host, port })}`;
    this.#token = token;
    this.#agent = tls === undefined ? undefined : new Agent({ connect: tls.toSupernode(host) });
  }

  /**
   * @param path with its leading slash
   * @returns the answer's JSON; undefined for an answer without a body
   * @throws AppError SUPERNODE_UNREACHABLE, TLS_FAILED, PROTOCOL_VIOLATION, and what the supernode answers
   */
  async call(method: "GET" | "PUT" | "POST" | "DELETE", path: string): Promise<unknown> {
    const response = await fetch(`${this.#address}${path}`, {
      method,
      headers: this.#token === undefined ? {} : { authorization: `Bearer ${this.#token}` },
      ...(this.#agent === undefined ? {} : { dispatcher: this.#agent }),
    }).catch((thrown: unknown) => {
      const { cause } = thrown as { cause?: unknown };
      const failure = this.#agent === undefined ? undefined : tlsFailure(cause, this.#address);
      if (failure !== undefined) throw failure;
      const why = toAppError(cause ?? thrown).message;
      throw new AppError("SUPERNODE_UNREACHABLE", `no supernode answers at ${this.#address}: ${why}; is it running? (--supernode HOST:PORT asks another)`, { cause: thrown });
    });
    if (isPlainRefusal(response.status, response.headers.get("upgrade") ?? undefined)) throw plainRefused(this.#address);
    const text = await response.text();
    if (response.ok) return text === "" ? undefined : jsonOf(text);
    const { success, data } = errorSchema.safeParse(jsonOf(text));
    if (!success) throw foreign(`${this.#address} answered ${response.status}`);
    throw new AppError(isErrorCode(data.code) ? data.code : "INTERNAL", data.message);
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw foreign("the answer is no JSON");
  }
}

function foreign(what: string): AppError {
  return new AppError("PROTOCOL_VIOLATION", `${what}: that is no supernode, or one of another version`);
}
