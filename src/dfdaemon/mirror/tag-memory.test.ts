import assert from "node:assert/strict";
import { test } from "node:test";
import type { Digest } from "../../protocol/ids.ts";
import { TagMemory } from "./tag-memory.ts";

const place = { registry: "reg.test", repository: "team/app" };
const [older, newer] = ["sha256:aa", "sha256:bb"] as [Digest, Digest];

function build(): { readonly tags: TagMemory; readonly clock: { nowMs: number } } {
  const clock = { nowMs: 0 };
  return { tags: new TagMemory({ freshMs: 100, staleMs: 1000, nowMs: () => clock.nowMs }), clock };
}

void test("what a tag means is young, then stale, then forgotten, by when the registry was asked", () => {
  const { tags, clock } = build();
  tags.remember(place, "v1", older, 0);
  clock.nowMs = 99;
  assert.deepEqual(tags.fresh(place, "v1"), { digest: older, ageMs: 99 });
  clock.nowMs = 100;
  assert.deepEqual([tags.fresh(place, "v1"), tags.stale(place, "v1")], [undefined, { digest: older, ageMs: 100 }]);
  clock.nowMs = 1000;
  assert.equal(tags.stale(place, "v1"), undefined);
});

void test("an answer that comes late does not take the place of one to a later question", () => {
  const { tags } = build();
  tags.remember(place, "v1", newer, 20);
  tags.remember(place, "v1", older, 10);
  assert.equal(tags.fresh(place, "v1")?.digest, newer);
});

void test("a tag is one of its own place, and forgotten with it", () => {
  const { tags } = build();
  tags.remember(place, "v1", older, 0);
  for (const other of [{ ...place, repository: "team/other" }, { ...place, registry: "other.test" }]) {
    assert.equal(tags.fresh(other, "v1"), undefined);
    tags.forget(other, "v1");
  }
  assert.equal(tags.fresh(place, "v2"), undefined);
  assert.equal(tags.fresh(place, "v1")?.digest, older);
  tags.forget(place, "v1");
  assert.equal(tags.fresh(place, "v1"), undefined);
});
