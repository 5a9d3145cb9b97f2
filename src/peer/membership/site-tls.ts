/**
 * TLS between the programs of a site: what listeners show, what dialers trust, and that both keep up with new certificates.
 *
 * 1.3 only: the exporter that ties the join token's proof to the connection (handshake.ts) is not unique before it.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Server as HttpServer } from "node:http";
import { createServer, type Server as HttpsServer } from "node:https";
import { type ConnectionOptions, createSecureContext, type SecureContext, type TlsOptions } from "node:tls";
import type { Logger } from "pino";
import { AppError, toAppError } from "../../base/errors.ts";
import type { OriginServer } from "../../origin/origin-clients.ts";
import type { TlsConfig } from "../config.ts";
import { refusePlain } from "./plain-refusal.ts";
import { type Credentials, credentialsByToken, MEMBER_LIFETIME_MS, SITE_NAME } from "./site-authority.ts";

export interface SiteTlsOptions {
  readonly config: TlsConfig;
  readonly token: string | undefined;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly unixMs?: () => number;
  /** Between looks at the files. Default 10,000. */
  readonly lookMs?: number;
}

/** What Node's TLS and HTTPS clients are told; `secureContext` is of this moment: ask for each connection. */
export type SiteConnectionOptions = Pick<ConnectionOptions, "secureContext" | "servername" | "checkServerIdentity" | "minVersion">;

export class SiteTls {
  readonly #options: SiteTlsOptions;
  readonly #unixMs: () => number;
  readonly #servers = new Set<HttpsServer>();
  readonly #timer: NodeJS.Timeout;
  #credentials: Credentials;
  #context: SecureContext;
  #renewAtUnixMs: number;
  #isEndTold = false;
  /** The last reason why new files were not taken: told once. */
  #problem: string | undefined;

  /** @throws AppError CONFIG_INVALID when there is no token, or the files do not fit together or have expired */
  constructor(options: SiteTlsOptions) {
    this.#options = options;
    this.#unixMs = options.unixMs ?? Date.now;
    this.#credentials = this.#load();
    this.#context = contextOf(this.#credentials);
    this.#renewAtUnixMs = this.#unixMs() + MEMBER_LIFETIME_MS / 2;
    this.#timer = setInterval(() => this.#look(), options.lookMs ?? LOOK_MS);
    this.#timer.unref();
  }

  /** The authorities that are trusted, PEM. */
  get ca(): string {
    return this.#credentials.ca;
  }

  /** When this host's own certificate ends. */
  get validUntil(): Date {
    return new Date(new X509Certificate(this.#credentials.cert).validTo);
  }

  /** The name that certificates have whoever shows them; undefined: each has its host's. */
  get commonName(): string | undefined {
    return this.#options.config.kind === "token" ? SITE_NAME : undefined;
  }

  /** For servers that others make, then handed to `serve`. Who shows no certificate of the site may ask, but not join. */
  serverOptions(): TlsOptions {
    return { ...this.#credentials, requestCert: true, rejectUnauthorized: false, minVersion: "TLSv1.3" };
  }

  /** A server for links and pieces. The caller listens and closes. */
  createServer(): HttpServer {
    const server = createServer(this.serverOptions());
    this.serve(server);
    return server;
  }

  /** Keeps the server's certificate current, and answers those who do not speak TLS in their own language. */
  serve(server: HttpsServer): void {
    this.#servers.add(server);
    server.once("close", () => this.#servers.delete(server));
    refusePlain(server, (address) => this.#options.log.warn({ remoteAddress: address }, "somebody speaks plain HTTP to this port, which speaks TLS: is tls set there?"));
  }

  /** To a supernode: one of this site, and where certificates have names of their own, the one that is meant. */
  toSupernode(host: string): SiteConnectionOptions {
    // On this machine nobody else listens there, and its certificate need not say 127.0.0.1.
    return this.#connectTo(isThisMachine(host));
  }

  /** To a peer, known by its id: any of this site. */
  toPeer(): SiteConnectionOptions {
    return this.#connectTo(true);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #connectTo(isAnyName: boolean): SiteConnectionOptions {
    const { commonName } = this;
    const base = { secureContext: this.#context, minVersion: "TLSv1.3" } as const;
    if (commonName !== undefined) return { ...base, servername: commonName };
    return isAnyName ? { ...base, checkServerIdentity: () => undefined } : base;
  }

  #look(): void {
    const { config, log } = this.#options;
    this.#tellEnd();
    if (config.kind === "token" && this.#unixMs() < this.#renewAtUnixMs) return;
    try {
      const credentials = this.#load();
      if (JSON.stringify(credentials) === JSON.stringify(this.#credentials)) return;
      this.#context = contextOf(credentials);
      this.#credentials = credentials;
      for (const server of this.#servers) server.setSecureContext(this.serverOptions());
      this.#renewAtUnixMs = this.#unixMs() + MEMBER_LIFETIME_MS / 2;
      this.#problem = undefined;
      this.#isEndTold = false;
      log.info({ validUntil: this.validUntil.toISOString() }, "a new TLS certificate is in use; connections that are open keep theirs");
    } catch (thrown) {
      // Files are replaced one after the other: the next look finds them whole.
      const { message } = toAppError(thrown);
      if (message !== this.#problem) log.warn(`new TLS files are not taken: ${message}`);
      this.#problem = message;
    }
  }

  #tellEnd(): void {
    const { validUntil } = this;
    if (this.#isEndTold || validUntil.getTime() - this.#unixMs() > END_NEAR_MS) return;
    this.#isEndTold = true;
    this.#options.log.warn({ validUntil: validUntil.toISOString() }, "the TLS certificate ends soon: others will refuse this host");
  }

  #load(): Credentials {
    const { config, token } = this.#options;
    if (config.kind === "files") return credentialsOfFiles(config, this.#unixMs());
    if (token !== undefined && token.length < TOKEN_CHARS_MIN) {
      throw new AppError("CONFIG_INVALID", `tls needs a join token of at least ${TOKEN_CHARS_MIN} random characters, from which its keys follow, or tlsCa, tlsCert and tlsKey`);
    }
    if (token !== undefined) return credentialsByToken(token, this.#unixMs());
    throw new AppError("CONFIG_INVALID", "tls needs a join token, from which its keys follow, or tlsCa, tlsCert and tlsKey");
  }
}

/** @throws AppError CONFIG_INVALID */
function credentialsOfFiles({ caFile, certFile, keyFile }: Extract<TlsConfig, { kind: "files" }>, nowUnixMs: number): Credentials {
  const [ca, cert, key] = [caFile, certFile, keyFile].map(read) as [string, string, string];
  const certificate = parsed(certFile, "certificate", () => new X509Certificate(cert));
  parsed(caFile, "certificate", () => new X509Certificate(ca));
  const privateKey = parsed(keyFile, "private key", () => createPrivateKey(key));
  if (!certificate.checkPrivateKey(privateKey)) throw new AppError("CONFIG_INVALID", `${keyFile} is not the key of ${certFile}`);
  if (Date.parse(certificate.validTo) <= nowUnixMs) throw new AppError("CONFIG_INVALID", `${certFile} expired on ${certificate.validTo}`);
  return { ca, cert, key };
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    throw new AppError("CONFIG_INVALID", `cannot read the TLS file ${file}: ${(cause as Error).message}`, { cause });
  }
}

function parsed<T>(file: string, what: string, parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    throw new AppError("CONFIG_INVALID", `${file} holds no ${what} in PEM form`, { cause });
  }
}

function contextOf(credentials: Credentials): SecureContext {
  return createSecureContext({ ...credentials, minVersion: "TLSv1.3" });
}

/** The supernode as an origin, for the test image: by a name that every host of the site knows, wherever it is reached. */
export function siteServer({ host, port }: { readonly host: string; readonly port: number }, tls: SiteTls): OriginServer {
  return { origin: SITE_ORIGIN, caCertificates: [], credentials: undefined, place: { host, port, tls: () => tls.toSupernode(host) } };
}

export const SITE_ORIGIN = `https://${SITE_NAME}`;

/** True for names and addresses of this machine. */
function isThisMachine(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

const LOOK_MS = 10_000;
/** Time enough for a person. */
const END_NEAR_MS = 7 * 24 * 60 * 60_000;
/** What is quick to guess would be guessed from a certificate that anybody can ask for. */
const TOKEN_CHARS_MIN = 32;
