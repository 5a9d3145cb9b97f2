import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import type { PeerId } from "../../protocol/ids.ts";
import type { HandshakeStep } from "../../protocol/handshake.ts";
import { DialerHandshake, ListenerHandshake, parseHandshakeStep } from "./handshake.ts";

const listenerId = "seed-0000000000000001" as PeerId;
const dialerId = "host-0000000000000002" as PeerId;

function pair(listenerToken: string | undefined, dialerToken: string | undefined): [ListenerHandshake, DialerHandshake] {
  return [
    new ListenerHandshake({ token: listenerToken, ownPeerId: listenerId, randomBytes, binding: "" }),
    new DialerHandshake({ token: dialerToken, ownPeerId: dialerId, randomBytes, binding: "" }),
  ];
}

/** As the wire does it. */
function overTheWire(step: HandshakeStep): HandshakeStep {
  return parseHandshakeStep(JSON.parse(JSON.stringify(step)));
}

for (const token of ["secret", undefined]) {
  test(`two sides that share ${token === undefined ? "no token" : "a token"} learn each other's ids`, () => {
    const [listener, dialer] = pair(token, token);
    const answer = listener.answer(overTheWire(dialer.onChallenge(overTheWire(listener.challenge()))));
    assert.equal(answer.peerId, dialerId);
    assert.equal(dialer.onWelcome(overTheWire(answer.reply)), listenerId);
  });
}

for (const [listenerToken, dialerToken] of [["a", "b"], ["a", undefined], [undefined, "b"]] as const) {
  test(`a dialer with token ${dialerToken} is refused by a listener with ${listenerToken}`, () => {
    const [listener, dialer] = pair(listenerToken, dialerToken);
    const answer = listener.answer(dialer.onChallenge(listener.challenge()));
    assert.equal(answer.peerId, undefined);
    assert.equal(answer.reply.type === "refused" && answer.reply.code, "TOKEN_REFUSED");
    assert.throws(() => dialer.onWelcome(answer.reply), { code: "TOKEN_REFUSED" });
  });
}

test("a listener that does not know the token is found out by the dialer", () => {
  const [impostor] = pair("other", undefined);
  const dialer = new DialerHandshake({ token: "secret", ownPeerId: dialerId, randomBytes, binding: "" });
  dialer.onChallenge(impostor.challenge());
  const proof = "A".repeat(43);
  assert.throws(() => dialer.onWelcome({ type: "welcome", peerId: listenerId, proof }), { code: "TOKEN_REFUSED" });
});

test("a recorded hello is refused on another connection, and a second time on its own", () => {
  const [listener, dialer] = pair("secret", "secret");
  const hello = dialer.onChallenge(listener.challenge());
  assert.equal(listener.answer(hello).peerId, dialerId);
  assert.equal(listener.answer(hello).peerId, undefined);
  const [another] = pair("secret", "secret");
  another.challenge();
  assert.equal(another.answer(hello).peerId, undefined);
});

test("the listener's own proof does not pass as a dialer's", () => {
  const [listener, dialer] = pair("secret", "secret");
  const welcome = listener.answer(dialer.onChallenge(listener.challenge())).reply;
  const [another] = pair("secret", "secret");
  const challenge = another.challenge();
  assert.ok(challenge.type === "challenge" && welcome.type === "welcome");
  const forged = { type: "hello", version: 1, peerId: listenerId, nonce: challenge.nonce, proof: welcome.proof } as const;
  assert.equal(another.answer(forged).peerId, undefined);
});

test("an id other than the proven one is refused", () => {
  const [listener, dialer] = pair("secret", "secret");
  const hello = dialer.onChallenge(listener.challenge());
  assert.ok(hello.type === "hello");
  assert.equal(listener.answer({ ...hello, peerId: "host-other" as PeerId }).peerId, undefined);
});

test("another protocol version is refused by name", () => {
  const [listener, dialer] = pair("secret", "secret");
  const hello = dialer.onChallenge(listener.challenge());
  assert.ok(hello.type === "hello");
  const answer = listener.answer({ ...hello, version: 2 });
  assert.equal(answer.reply.type === "refused" && answer.reply.code, "VERSION_UNSUPPORTED");
  const fresh = new DialerHandshake({ token: "secret", ownPeerId: dialerId, randomBytes, binding: "" });
  const challenge: HandshakeStep = { type: "challenge", version: 7, nonce: "A".repeat(22) };
  assert.throws(() => fresh.onChallenge(challenge), { code: "VERSION_UNSUPPORTED" });
});

test("a proof made on one TLS connection is worth nothing on another: who stands between the two cannot pass it on", () => {
  const listener = new ListenerHandshake({ token: "secret", ownPeerId: listenerId, randomBytes, binding: "one" });
  const dialer = new DialerHandshake({ token: "secret", ownPeerId: dialerId, randomBytes, binding: "other" });
  const answer = listener.answer(dialer.onChallenge(listener.challenge()));
  assert.equal(answer.reply.type === "refused" && answer.reply.code, "TOKEN_REFUSED");
});

test("steps out of turn end the handshake", () => {
  const [listener, dialer] = pair("secret", "secret");
  const hello = { type: "hello", version: 1, peerId: dialerId, nonce: "A".repeat(22), proof: "A".repeat(43) } as const;
  assert.equal(listener.answer(hello).peerId, undefined);
  assert.throws(() => dialer.onWelcome({ type: "welcome", peerId: listenerId, proof: "A".repeat(43) }), {
    code: "PROTOCOL_VIOLATION",
  });
  assert.throws(() => dialer.onChallenge(hello), { code: "PROTOCOL_VIOLATION" });
  assert.throws(() => parseHandshakeStep({ type: "hello", peerId: "../etc" }), { code: "PROTOCOL_VIOLATION" });
});
