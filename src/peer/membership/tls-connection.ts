/** What there is to know of one connection that may or may not be encrypted. */
import { type Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import { AppError } from "../../base/errors.ts";

/**
 * What makes this connection unlike any other to both its ends, and to nobody between them (RFC 9266): the proof of the join
 * token covers it, so that it cannot be carried to another connection. Empty for a plain one.
 */
export function channelBinding(socket: Duplex): string {
  return socket instanceof TLSSocket ? socket.exportKeyingMaterial(32, BINDING_LABEL, Buffer.alloc(0)).toString("base64url") : "";
}

/** Why the other end of an accepted connection is not of this site; undefined: it is, or the connection is plain. */
export function strangerReason(socket: Duplex): string | undefined {
  if (!(socket instanceof TLSSocket) || socket.authorized) return undefined;
  // Node's types have an Error here; what there is, is its code.
  const code = String(socket.authorizationError ?? "NO_CERTIFICATE");
  return code === "UNABLE_TO_GET_ISSUER_CERT" && socket.getPeerCertificate().raw === undefined ? "NO_CERTIFICATE" : code;
}

/** The HTTP answer to an upgrade by a stranger; the dialer makes {@link refusedCertificate} of its reason. */
export function strangerAnswer(reason: string): string {
  return `HTTP/1.1 403 ${reason}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`;
}

export function refusedCertificate(at: string, reason: string | undefined): AppError {
  const why = CHAIN_CODES.has(reason ?? "") ? "it is not of that site's authority" : (REASONS[reason ?? ""] ?? reason ?? "no reason given");
  return new AppError("TLS_FAILED", `${at} refuses this host's TLS certificate: ${why}`);
}

/** What is wrong when a TLS handshake with `at` has failed; undefined: it is nothing of TLS's. */
export function tlsFailure(error: unknown, at: string): AppError | undefined {
  const { code = "", message } = error as NodeJS.ErrnoException;
  if (CHAIN_CODES.has(code)) {
    return failed(`the TLS certificate of ${at} is not of this site's authority (${code}); both need the same join token, or files of one authority`, error);
  }
  const reason = REASONS[code];
  if (reason !== undefined) return failed(`the TLS certificate of ${at}: ${reason}`, error);
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") return failed(`the TLS certificate of ${at} is for other names: ${message}`, error);
  if (PLAIN_CODES.has(code) || (code === "EPROTO" && PLAIN_WORDS.test(message))) return failed(`${at} does not speak TLS, and this program does: set tls there, or leave it out here`, error);
  return code.startsWith("ERR_SSL_") ? failed(`TLS with ${at} failed: ${message}`, error) : undefined;
}

/** @param at speaks TLS, as its answer to a plain request says */
export function plainRefused(at: string): AppError {
  return new AppError("TLS_FAILED", `${at} speaks TLS, and this program does not: set tls here, or leave it out there`);
}

function failed(message: string, cause: unknown): AppError {
  return new AppError("TLS_FAILED", message, { cause });
}

/** RFC 9266 §4. */
const BINDING_LABEL = "EXPORTER-Channel-Binding";

const CHAIN_CODES: ReadonlySet<string> = new Set([
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "CERT_SIGNATURE_FAILURE",
]);

/** OpenSSL's, to an answer that is no record of TLS's. */
const PLAIN_CODES: ReadonlySet<string> = new Set(["ERR_SSL_WRONG_VERSION_NUMBER", "ERR_SSL_PACKET_LENGTH_TOO_LONG", "ERR_SSL_HTTP_REQUEST"]);

/** The same where a write found out. */
const PLAIN_WORDS = /wrong version number|packet length too long|http request/;

const REASONS: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: "it has expired",
  CERT_NOT_YET_VALID: "it is not valid yet; are the clocks right?",
  INVALID_PURPOSE: "it may not be used by both servers and clients (extended key usage)",
  NO_CERTIFICATE: "it shows none",
};
