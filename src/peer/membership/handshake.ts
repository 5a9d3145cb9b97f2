/**
 * Both sides of the handshake (protocol/handshake.ts), without a wire: steps in, steps out. One object per connection.
 *
 * Control connections and links use the same; each has its own framing. A wrong order, a second answer or a version we
 * do not speak ends the connection.
 */
import { AppError, type ErrorCode, isErrorCode } from "../../base/errors.ts";
import { type HandshakeStep, handshakeSchema, PROTOCOL_VERSION, proofText } from "../../protocol/handshake.ts";
import type { PeerId } from "../../protocol/ids.ts";
import { secretsEqual, tokenProof } from "./credentials.ts";

export interface HandshakeConfig {
  /** The site's join token. Undefined is the insecure mode, which only meets its like. */
  readonly token: string | undefined;
  readonly ownPeerId: PeerId;
  /** `count` random bytes, fit for secrets. */
  readonly randomBytes: (count: number) => Uint8Array;
}

/** What a site's handshakes have in common, and the connection of this one (tls-connection.ts). */
export type ConnectionHandshake = HandshakeConfig & { readonly binding: string };

/** What the listener makes of a `hello`. `peerId` only when `reply` is a welcome. */
export type ListenerAnswer =
  | { readonly reply: Extract<HandshakeStep, { type: "welcome" }>; readonly peerId: PeerId }
  | { readonly reply: Extract<HandshakeStep, { type: "refused" }>; readonly peerId: undefined };

/** The side that was dialled: `challenge()`, then `answer(hello)`, each once. */
export class ListenerHandshake {
  readonly #config: ConnectionHandshake;
  #nonce: string | undefined;

  constructor(config: ConnectionHandshake) {
    this.#config = config;
  }

  /** The first frame of the connection. Its nonce is good for one answer. */
  challenge(): HandshakeStep {
    this.#nonce = nonce(this.#config);
    return { type: "challenge", version: PROTOCOL_VERSION, nonce: this.#nonce };
  }

  /** Never throws: whatever is wrong becomes a `refused`, to be sent before the connection is closed. */
  answer(step: HandshakeStep): ListenerAnswer {
    const ownNonce = this.#nonce;
    this.#nonce = undefined;
    if (ownNonce === undefined || step.type !== "hello") {
      return refusal("PROTOCOL_VIOLATION", `a handshake step ${step.type} came out of turn`);
    }
    if (step.version !== PROTOCOL_VERSION) {
      return refusal("VERSION_UNSUPPORTED", `protocol version ${step.version} is not ${PROTOCOL_VERSION}`);
    }
    const expected = tokenProof(this.#config.token, proofText("dial", ownNonce, step.nonce, step.peerId, this.#config.binding));
    if (!secretsEqual(step.proof, expected)) {
      return refusal("TOKEN_REFUSED", "the join token is not this site's; give the one in the supernode's data folder");
    }
    const { ownPeerId, token, binding } = this.#config;
    const proof = tokenProof(token, proofText("listen", ownNonce, step.nonce, ownPeerId, binding));
    return { reply: { type: "welcome", peerId: ownPeerId, proof }, peerId: step.peerId };
  }
}

/** The side that dialled: `onChallenge(step)`, send the result, then `onWelcome(step)`. */
export class DialerHandshake {
  readonly #config: ConnectionHandshake;
  #nonces: { readonly listener: string; readonly dialer: string } | undefined;

  constructor(config: ConnectionHandshake) {
    this.#config = config;
  }

  /** @throws AppError PROTOCOL_VIOLATION, VERSION_UNSUPPORTED, or what a `refused` says */
  onChallenge(step: HandshakeStep): HandshakeStep {
    if (step.type === "refused") throw refusedError(step);
    if (step.type !== "challenge" || this.#nonces !== undefined) throw outOfTurn(step);
    if (step.version !== PROTOCOL_VERSION) {
      throw new AppError("VERSION_UNSUPPORTED", `the other side speaks protocol ${step.version}, not ${PROTOCOL_VERSION}`);
    }
    this.#nonces = { listener: step.nonce, dialer: nonce(this.#config) };
    const { ownPeerId, token, binding } = this.#config;
    const proof = tokenProof(token, proofText("dial", step.nonce, this.#nonces.dialer, ownPeerId, binding));
    return { type: "hello", version: PROTOCOL_VERSION, peerId: ownPeerId, nonce: this.#nonces.dialer, proof };
  }

  /**
   * @returns the listener's id, proven
   * @throws AppError TOKEN_REFUSED (either side does not know the token), PROTOCOL_VIOLATION, or what a `refused` says
   */
  onWelcome(step: HandshakeStep): PeerId {
    if (step.type === "refused") throw refusedError(step);
    if (step.type !== "welcome" || this.#nonces === undefined) throw outOfTurn(step);
    const { listener, dialer } = this.#nonces;
    const expected = tokenProof(this.#config.token, proofText("listen", listener, dialer, step.peerId, this.#config.binding));
    if (!secretsEqual(step.proof, expected)) {
      throw new AppError("TOKEN_REFUSED", `${step.peerId} does not know this site's join token`);
    }
    return step.peerId;
  }
}

/** A step from parsed JSON. @throws AppError PROTOCOL_VIOLATION when it is none */
export function parseHandshakeStep(value: unknown): HandshakeStep {
  const parsed = handshakeSchema.safeParse(value);
  if (!parsed.success) throw new AppError("PROTOCOL_VIOLATION", "a handshake step is malformed");
  return parsed.data;
}

function nonce(config: HandshakeConfig): string {
  return Buffer.from(config.randomBytes(16)).toString("base64url");
}

function refusal(code: ErrorCode, message: string): ListenerAnswer {
  return { reply: { type: "refused", code, message }, peerId: undefined };
}

function refusedError(step: Extract<HandshakeStep, { type: "refused" }>): AppError {
  return new AppError(isErrorCode(step.code) ? step.code : "PROTOCOL_VIOLATION", `refused: ${step.message}`);
}

function outOfTurn(step: HandshakeStep): AppError {
  return new AppError("PROTOCOL_VIOLATION", `a handshake step ${step.type} came out of turn`);
}
