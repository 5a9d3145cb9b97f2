import { createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, X509Certificate, type KeyObject } from "node:crypto";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { createSecureContext, type SecureContext } from "node:tls";
import { AppError } from "../../base/errors.ts";
import { loadOrCreateSecret } from "../../peer/membership/credentials.ts";
import { authorityCertificate, hostCertificate, issuerOf, type Issuer } from "../../peer/membership/certificate.ts";

/**
 * This host's own certificate authority, which vouches to the engines of this host for the servers whose TLS is ended
 * here. Made at the first use: `ca-key.pem` (mode 0600) and `ca.pem`, which engines are told to trust.
 */
export class Authority {
  /** Where the certificate lies; absolute. */
  readonly certificateFile: string;
  readonly certificatePem: string;
  readonly #issuer: Issuer;
  /** One key for all hosts, for as long as this process runs. */
  readonly #hostKeys = generateKeyPairSync("ec", { namedCurve: "P-256" });
  readonly #nowUnixMs: () => number;
  /** By host, the least recently used first. */
  readonly #contexts = new Map<string, { readonly context: SecureContext; readonly renewAtMs: number }>();

  /**
   * @param directory made when missing, mode 0700
   * @throws AppError DISK_FAILED, or CONFIG_INVALID when what lies there does not fit together
   */
  constructor(directory: string, nowUnixMs: () => number = Date.now) {
    this.#nowUnixMs = nowUnixMs;
    const keyFile = join(directory, "ca-key.pem");
    this.certificateFile = join(directory, "ca.pem");
    const privateKey = readKey(keyFile);
    const publicKey = createPublicKey(privateKey);
    this.certificatePem = loadOrSign(this.certificateFile, privateKey, publicKey, nowUnixMs());
    const certificate = readCertificate(this.certificateFile, this.certificatePem);
    if (!certificate.checkPrivateKey(privateKey)) {
      throw new AppError("CONFIG_INVALID", `${this.certificateFile} is not of the key ${keyFile}; move both away to get new ones`);
    }
    if (Date.parse(certificate.validTo) < nowUnixMs()) {
      throw new AppError("CONFIG_INVALID", `${this.certificateFile} ended on ${certificate.validTo}; move it away to get a new one, and have engines trust that`);
    }
    if (!certificate.ca) {
      throw new AppError("CONFIG_INVALID", `${this.certificateFile} is not of an authority: it may not sign certificates of hosts`);
    }
    this.#issuer = issuerOf(certificate.raw, privateKey);
  }

  /** Hosts whose certificates are at hand. */
  get hostCount(): number {
    return this.#contexts.size;
  }

  /** @param host a name or an address without brackets, as the client knows the server */
  contextFor(host: string): SecureContext {
    const nowMs = this.#nowUnixMs();
    const known = this.#contexts.get(host);
    this.#contexts.delete(host);
    const entry = known !== undefined && nowMs < known.renewAtMs ? known : this.#issue(host, nowMs);
    this.#contexts.set(host, entry);
    const [oldest] = this.#contexts.keys();
    if (this.#contexts.size > HOSTS_MAX && oldest !== undefined) this.#contexts.delete(oldest);
    return entry.context;
  }

  #issue(host: string, nowMs: number): { readonly context: SecureContext; readonly renewAtMs: number } {
    const { publicKey, privateKey } = this.#hostKeys;
    const lifetime = { fromMs: nowMs - CLOCK_TOLERANCE_MS, untilMs: nowMs + HOST_LIFETIME_MS };
    const cert = hostCertificate(this.#issuer, host, publicKey, lifetime) + this.certificatePem;
    const key = privateKey.export({ type: "pkcs8", format: "pem" });
    return { context: createSecureContext({ key, cert, minVersion: "TLSv1.2" }), renewAtMs: nowMs + HOST_LIFETIME_MS / 2 };
  }
}

function readKey(file: string): KeyObject {
  const pem = loadOrCreateSecret(file, () =>
    generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  );
  try {
    const key = createPrivateKey(pem);
    if (key.asymmetricKeyDetails?.namedCurve === "prime256v1") return key;
  } catch (cause) {
    throw new AppError("CONFIG_INVALID", `${file} holds no private key; move it away to get a new one`, { cause });
  }
  throw new AppError("CONFIG_INVALID", `${file} holds a key that is not of the curve P-256; move it away to get a new one`);
}

function loadOrSign(file: string, privateKey: KeyObject, publicKey: KeyObject, nowMs: number): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT") {
      throw new AppError("DISK_FAILED", `cannot read ${file}: ${(cause as Error).message}`, { cause });
    }
  }
  // Told apart from those of other hosts, and from an earlier one of this host, in the stores of those who trust it.
  const name = `Dragonfly proxy of ${hostname().slice(0, 32)} ${randomBytes(4).toString("hex")}`;
  const lifetime = { fromMs: nowMs - CLOCK_TOLERANCE_MS, untilMs: nowMs + AUTHORITY_LIFETIME_MS };
  const pem = authorityCertificate(name, { privateKey, publicKey }, lifetime);
  try {
    writeFileSync(`${file}.new`, pem, { mode: 0o644 });
    renameSync(`${file}.new`, file);
  } catch (cause) {
    throw new AppError("DISK_FAILED", `cannot write ${file}: ${(cause as Error).message}`, { cause });
  }
  return pem;
}

function readCertificate(file: string, pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (cause) {
    throw new AppError("CONFIG_INVALID", `${file} holds no certificate; move it away to get a new one`, { cause });
  }
}

const DAY_MS = 24 * 60 * 60_000;
/** As long as Dragonfly 1.0's: an operator has to distribute it. */
const AUTHORITY_LIFETIME_MS = 3650 * DAY_MS;
/** Renewed at half of it; short, for it cannot be revoked. */
const HOST_LIFETIME_MS = 30 * DAY_MS;
/** For clients whose clock is behind. */
const CLOCK_TOLERANCE_MS = DAY_MS;

/** A context takes some 50 KiB. */
const HOSTS_MAX = 256;
