/**
 * Who may say what: the supernode's signing key, the statements and tickets it signs, and the site's join token.
 *
 * Signatures are Ed25519 over the byte strings of protocol/link-frames.ts. Tickets say "this peer may have this task until
 * then" (checked in tickets.ts); the join token is the secret that everybody of one site shares.
 */
import {
  createHmac,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  generateKeyPairSync,
  hash,
  type KeyObject,
  randomBytes,
  sign as edSign,
  timingSafeEqual,
  verify as edVerify,
} from "node:crypto";
import { closeSync, fsyncSync, linkSync, mkdirSync, openSync, readFileSync, unlinkSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { AppError } from "../../base/errors.ts";
import type { TicketClaims } from "../../protocol/control-messages.ts";
import { isPeerId, type PeerId, type TaskId } from "../../protocol/ids.ts";
import { lengthStatement, pieceStatement } from "../../protocol/link-frames.ts";

/** Signs in the supernode's name. Its private half never leaves the process but for its own file. */
export class SigningKey {
  readonly #privateKey: KeyObject;
  /** SPKI DER: what peers are told, and what task files keep beside the signatures. */
  readonly publicKey: Uint8Array;

  /** @param privateKey an Ed25519 key */
  constructor(privateKey: KeyObject) {
    this.#privateKey = privateKey;
    this.publicKey = createPublicKey(privateKey).export({ type: "spki", format: "der" });
  }

  /** A key that lives as long as the process: tests, and peers that seed nothing. */
  static generate(): SigningKey {
    return new SigningKey(generateKeyPairSync("ed25519").privateKey);
  }

  /**
   * The key in `file` (PKCS #8 PEM); made at the first start, with mode 0600. Safe against two starts at once.
   * @throws AppError DISK_FAILED when the file cannot be read, written, or holds no Ed25519 key
   */
  static loadOrCreate(file: string): SigningKey {
    const pem = loadOrCreateSecret(file, () =>
      generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    );
    try {
      const key = createPrivateKey(pem);
      if (key.asymmetricKeyType === "ed25519") return new SigningKey(key);
    } catch (error) {
      throw new AppError("DISK_FAILED", `${file} holds no private key; move it away to get a new one`, { cause: error });
    }
    throw new AppError("DISK_FAILED", `${file} holds a key that is not Ed25519; move it away to get a new one`);
  }

  sign(statement: Uint8Array): Uint8Array {
    return edSign(null, statement, this.#privateKey);
  }

  /** 64 bytes; `digest` is the piece's BLAKE3-256. */
  signPiece(taskId: TaskId, piece: number, lengthBytes: number, digest: Uint8Array): Uint8Array {
    return this.sign(pieceStatement(taskId, piece, lengthBytes, digest));
  }

  signLength(taskId: TaskId, lengthBytes: number): Uint8Array {
    return this.sign(lengthStatement(taskId, lengthBytes));
  }

  /** @returns `<base64url JSON>.<base64url signature>`, ASCII */
  signTicket(claims: TicketClaims): string {
    const body = Buffer.from(JSON.stringify(claims)).toString("base64url");
    return `${body}.${Buffer.from(this.sign(ticketStatement(body))).toString("base64url")}`;
  }

  /** A secret of its own for one purpose, the same after every start: 32 bytes, as a key that is quick to use. */
  deriveSecret(purpose: string): KeyObject {
    const seed = this.#privateKey.export({ type: "pkcs8", format: "der" });
    return createSecretKey(createHmac("sha256", seed).update(`dragonfly/1 derive ${purpose}`).digest());
  }
}

/** Checks what a supernode signed. */
export class SignatureVerifier {
  readonly #publicKey: KeyObject;

  /** @throws AppError PROTOCOL_VIOLATION when `publicKey` is no Ed25519 key in SPKI DER */
  constructor(publicKey: Uint8Array) {
    try {
      this.#publicKey = createPublicKey({ key: Buffer.from(publicKey), type: "spki", format: "der" });
    } catch (error) {
      throw new AppError("PROTOCOL_VIOLATION", "the supernode's public key cannot be read", { cause: error });
    }
    if (this.#publicKey.asymmetricKeyType !== "ed25519") {
      throw new AppError("PROTOCOL_VIOLATION", "the supernode's public key is not Ed25519");
    }
  }

  verify(statement: Uint8Array, signature: Uint8Array): boolean {
    return edVerify(null, statement, this.#publicKey, signature);
  }

  verifyLength(taskId: TaskId, lengthBytes: number, signature: Uint8Array): boolean {
    return this.verify(lengthStatement(taskId, lengthBytes), signature);
  }
}

/** A join token: 256 bits, base64url. */
export function generateJoinToken(): string {
  return randomBytes(32).toString("base64url");
}

/**
 * The join token in the first line of `file`; made at the first start, with mode 0600.
 * @throws AppError DISK_FAILED when the file cannot be read or written, or is empty
 */
export function loadOrCreateJoinToken(file: string): string {
  const text = loadOrCreateSecret(file, () => `${generateJoinToken()}\n`);
  const token = (text.split("\n", 1)[0] as string).trim();
  if (token === "") throw new AppError("DISK_FAILED", `${file} is empty; remove it to get a new join token`);
  return token;
}

/** HMAC-SHA-256 of `text` under the join token, base64url (43 characters). No token: the empty key. */
export function tokenProof(token: string | undefined, text: string): string {
  return createHmac("sha256", token ?? "").update(text).digest("base64url");
}

/** Compares two secrets in time that does not depend on where they differ. */
export function secretsEqual(left: string, right: string): boolean {
  // Digests are of equal length: unequal lengths take the same way.
  return timingSafeEqual(hash("sha256", left, "buffer"), hash("sha256", right, "buffer"));
}

/** `<host name>-<16 hex>`, unlike any other process's. Characters that an id may not hold become `-`. */
export function generatePeerId(hostName: string): PeerId {
  const name = hostName.replaceAll(/[^A-Za-z0-9._-]/g, "-").replace(/^[^A-Za-z0-9]+/, "").slice(0, 79);
  const id = `${name === "" ? "host" : name}-${randomBytes(8).toString("hex")}`;
  if (!isPeerId(id)) throw new AppError("INTERNAL", `host name ${hostName} gives no peer id`);
  return id;
}

/** Signed tickets and signed statements share a key: the prefix keeps one from passing for the other. */
export function ticketStatement(body: string): Uint8Array {
  return Buffer.from(`dragonfly/ticke1${body}`);
}

/**
 * Reads a small secret, or writes a new one: complete under a temporary name first, then linked, so that a crash leaves
 * no half file and of two processes at once both use the first one's.
 */
export function loadOrCreateSecret(file: string, create: () => string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw secretFailed(file, error);
  }
  const temporary = `${file}.${process.pid}.${randomBytes(4).toString("hex")}`;
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    const fd = openSync(temporary, "wx", 0o600);
    try {
      writeSync(fd, create());
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    try {
      linkSync(temporary, file);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    } finally {
      unlinkSync(temporary);
    }
    return readFileSync(file, "utf8");
  } catch (error) {
    throw secretFailed(file, error);
  }
}

function secretFailed(file: string, error: unknown): AppError {
  const why = error instanceof Error ? error.message : String(error);
  return new AppError("DISK_FAILED", `cannot read or write the secret ${file}: ${why}`, { cause: error });
}
