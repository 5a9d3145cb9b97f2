import { createPrivateKey, type KeyObject, randomUUID, sign } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

import type { Credentials } from "./engine.ts";
import type { Lab } from "./processes.ts";

const ISSUER = "e2e-tokens";
const SERVICE = "e2e-registry";
const TOKEN_SECONDS = 300;

/** Who may read what is not under `public/`. */
export const USER = { name: "alice", password: "planted-secret-of-alice" } as const;

interface Access {
  readonly type: string;
  readonly name: string;
  readonly actions: readonly string[];
}

/**
 * What docker-registry sends its clients to for tokens: everybody gets to read repositories under `public/`, and
 * one user all of them. As Docker's, it answers an unknown password with 401, and a right that one has not by a
 * token without it.
 */
export class TokenServer {
  /** `auth` of docker-registry's configuration, one line. */
  readonly registryConfig: string;
  readonly #user: Credentials;
  readonly #key: KeyObject;
  readonly #certificate: string;
  #requests = 0;

  private constructor(user: Credentials, address: string, port: number, keyFile: string, certificateFile: string) {
    this.#user = user;
    this.#key = createPrivateKey(readFileSync(keyFile));
    this.#certificate = readFileSync(certificateFile, "utf8").replaceAll(/-----[^-]+-----|\s/g, "");
    const realm = `http://${address}:${port}/token`;
    this.registryConfig =
      `auth: { token: { realm: "${realm}", service: ${SERVICE}, issuer: ${ISSUER}, rootcertbundle: "${certificateFile}" } }`;
  }

  /** @param user who may read everything */
  static async start(lab: Lab, address: string, port: number, user: Credentials = USER): Promise<TokenServer> {
    const [key, certificate] = [lab.path(`token-${port}.key`), lab.path(`token-${port}.crt`)];
    await lab.must([
      "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", `/CN=${ISSUER}`,
      "-keyout", key, "-out", certificate,
    ]);
    const tokens = new TokenServer(user, address, port, key, certificate);
    const server = createServer((request, response) => void tokens.#answer(request, response));
    server.listen(port, address);
    await once(server, "listening");
    lab.onClose(() => {
      server.close();
      server.closeAllConnections();
    });
    return tokens;
  }

  /** Tokens asked for so far. */
  get requests(): number {
    return this.#requests;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#requests += 1;
    const asked = await parametersOf(request);
    const user = userOf(request, asked, this.#user);
    if (user === null) {
      response.writeHead(401, { "Content-Type": "application/json" });
      response.end(JSON.stringify({ errors: [{ code: "UNAUTHORIZED", message: "no such user or password" }] }));
      return;
    }
    const scopes = asked.getAll("scope").flatMap((scope) => scope.split(" "));
    const access = scopes.map(accessOf).filter((wanted) => wanted !== undefined && mayRead(user, wanted));
    const token = this.#token(user ?? "", access as Access[]);
    response.writeHead(200, { "Content-Type": "application/json" });
    response.end(JSON.stringify({ token, access_token: token, expires_in: TOKEN_SECONDS, issued_at: new Date().toISOString() }));
  }

  #token(subject: string, access: readonly Access[]): string {
    const nowSeconds = Math.floor(Date.now() / 1000);
    const claims = {
      iss: ISSUER, sub: subject, aud: SERVICE, jti: randomUUID(), access,
      nbf: nowSeconds - 10, iat: nowSeconds, exp: nowSeconds + TOKEN_SECONDS,
    };
    const head = { typ: "JWT", alg: "RS256", x5c: [this.#certificate] };
    const text = [head, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
    return `${text}.${sign("sha256", Buffer.from(text), this.#key).toString("base64url")}`;
  }
}

/** By GET in the query, by POST in a form's body. */
async function parametersOf(request: IncomingMessage): Promise<URLSearchParams> {
  if (request.method !== "POST") return new URL(request.url ?? "/", "http://tokens").searchParams;
  const body: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) body.push(chunk);
  return new URLSearchParams(Buffer.concat(body).toString());
}

/** @returns undefined for nobody, null for somebody unknown */
function userOf(request: IncomingMessage, asked: URLSearchParams, known: Credentials): string | null | undefined {
  const basic = /^Basic (.+)$/.exec(request.headers.authorization ?? "")?.[1];
  const form = asked.get("grant_type") === "password" ? `${asked.get("username")}:${asked.get("password")}` : undefined;
  const credentials = basic === undefined ? form : Buffer.from(basic, "base64").toString();
  if (credentials === undefined) return undefined;
  return credentials === `${known.name}:${known.password}` ? known.name : null;
}

function accessOf(scope: string): Access | undefined {
  const [type = "", name = "", actions = ""] = scope.split(":");
  return type === "repository" && actions.split(",").includes("pull") ? { type, name, actions: ["pull"] } : undefined;
}

function mayRead(user: string | undefined, { name }: Access): boolean {
  return user !== undefined || name.startsWith("public/");
}
