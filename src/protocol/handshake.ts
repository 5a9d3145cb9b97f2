/**
 * The first frames of every connection (control and link alike): mutual proof of the join token, without sending it.
 *
 *     listener → dialer   challenge { nonce }
 *     dialer → listener   hello     { version, peerId, nonce, proof = HMAC(token, "dial" | both nonces | peerId) }
 *     listener → dialer   welcome   { peerId, proof = HMAC(token, "listen" | both nonces | peerId) }  or  refused
 *
 * HMAC is HMAC-SHA-256, base64url; nonces are 16 random bytes, base64url. The impure side computes them. Over TLS the proof
 * covers the connection, too (RFC 9266): it is worth nothing on another one.
 */
import { z } from "zod";
import { isPeerId, type PeerId } from "./ids.ts";

export const PROTOCOL_VERSION = 1;

const nonce = z.string().regex(/^[A-Za-z0-9_-]{22}$/);
const proof = z.string().regex(/^[A-Za-z0-9_-]{43}$/);
export const peerIdSchema: z.ZodType<PeerId> = z.custom<PeerId>((value) => typeof value === "string" && isPeerId(value));

export const handshakeSchema: z.ZodType<HandshakeStep> = z.discriminatedUnion("type", [
  z.object({ type: z.literal("challenge"), version: z.number().int(), nonce }),
  z.object({ type: z.literal("hello"), version: z.number().int(), peerId: peerIdSchema, nonce, proof }),
  z.object({ type: z.literal("welcome"), peerId: peerIdSchema, proof }),
  z.object({ type: z.literal("refused"), code: z.string().max(64), message: z.string().max(1024) }),
]);

export type HandshakeStep =
  | { readonly type: "challenge"; readonly version: number; readonly nonce: string }
  | {
      readonly type: "hello";
      readonly version: number;
      readonly peerId: PeerId;
      readonly nonce: string;
      readonly proof: string;
    }
  | { readonly type: "welcome"; readonly peerId: PeerId; readonly proof: string }
  | { readonly type: "refused"; readonly code: string; readonly message: string };

/**
 * The text whose HMAC is the dialer's (`dial`) or the listener's (`listen`) proof.
 * @param binding of the TLS connection, base64url; empty for a plain one
 */
export function proofText(
  side: "dial" | "listen",
  listenerNonce: string,
  dialerNonce: string,
  peerId: PeerId,
  binding: string,
): string {
  return `dragonfly/1 ${side} ${listenerNonce} ${dialerNonce} ${peerId}${binding === "" ? "" : ` ${binding}`}`;
}
