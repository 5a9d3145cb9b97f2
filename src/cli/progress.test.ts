import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { renderBar, renderFinal, renderPlain, sourcesText, type ProgressFigures } from "./progress.ts";
import { chooseProgress } from "./progress-reporter.ts";
import { RateMeter } from "./rate-meter.ts";

const MIB = 2 ** 20;
const FIGURES: ProgressFigures = {
  name: "image.tar",
  doneBytes: 50 * MIB,
  resumedBytes: 0,
  totalBytes: 200 * MIB,
  bytesPerSecond: 10 * MIB,
  elapsedMs: 5000,
  sources: { seedBytes: 10 * MIB, peerBytes: 40 * MIB, originBytes: 0, cacheBytes: 0 },
};

test("a bar with all of it where there is room, less where there is not", () => {
  const at = (columns: number): string => renderBar(FIGURES, { columns, colour: false });
  assert.equal(
    at(130),
    "image.tar  25% [=========>                              ] 50.0 MiB / 200 MiB  10.0 MiB/s  15s left  seed 20% peers 80%",
  );
  assert.equal(at(80), " 25% [=>         ] 50.0 MiB / 200 MiB  10.0 MiB/s  15s left  seed 20% peers 80%");
  assert.equal(at(70), " 25% 50.0 MiB / 200 MiB  10.0 MiB/s  15s left  seed 20% peers 80%");
  assert.equal(at(60), " 25% 50.0 MiB / 200 MiB  10.0 MiB/s  seed 20% peers 80%");
  assert.equal(at(50), " 25% [=>         ] 50.0 MiB / 200 MiB  10.0 MiB/s");
  assert.equal(at(20), "50.0 MiB / 200 MiB");
  assert.equal(at(15), "50.0 MiB / 20…");
});

test("no line is ever as wide as the terminal, whatever the figures", () => {
  const number = fc.nat({ max: 2 ** 50 });
  fc.assert(
    fc.property(
      fc.integer({ min: 11, max: 300 }),
      number,
      fc.option(number, { nil: undefined }),
      fc.option(number, { nil: undefined }),
      fc.string(),
      (columns, doneBytes, totalBytes, bytesPerSecond, name) => {
        const sources = { seedBytes: doneBytes, peerBytes: 1, originBytes: 1, cacheBytes: 1 };
        return (
          renderBar({ ...FIGURES, name, doneBytes, totalBytes, bytesPerSecond, sources }, { columns, colour: false })
            .length < columns
        );
      },
    ),
  );
});

test("an unknown length has neither percent nor bar", () => {
  const figures = { ...FIGURES, totalBytes: undefined };
  assert.equal(
    renderBar(figures, { columns: 100, colour: false }),
    "image.tar 50.0 MiB  10.0 MiB/s  seed 20% peers 80%",
  );
  assert.equal(renderPlain(figures), "image.tar: 50.0 MiB, 10.0 MiB/s, seed 20% peers 80% origin 0%");
});

test("colour only when asked for", () => {
  assert.equal(renderBar(FIGURES, { columns: 100, colour: true }).includes("\u001b["), true);
  assert.equal(renderBar(FIGURES, { columns: 100, colour: false }).includes("\u001b"), false);
});

test("lines for logs, and the last word", () => {
  assert.equal(
    renderPlain(FIGURES),
    "image.tar: 50.0 MiB of 200 MiB (25%), 10.0 MiB/s, 15s left, seed 20% peers 80% origin 0%",
  );
  assert.equal(renderFinal(FIGURES), "image.tar: 50.0 MiB in 5.0s, 10.0 MiB/s, seed 20% peers 80% origin 0%");
  assert.equal(
    renderFinal({ ...FIGURES, resumedBytes: 25 * MIB }),
    "image.tar: 50.0 MiB (25.0 MiB were here) in 5.0s, 5.00 MiB/s, seed 20% peers 80% origin 0%",
  );
  assert.equal(
    renderPlain({ ...FIGURES, bytesPerSecond: 0 }),
    "image.tar: 50.0 MiB of 200 MiB (25%), 0 B/s, stalled, seed 20% peers 80% origin 0%",
  );
  assert.equal(
    sourcesText({ seedBytes: 0, peerBytes: 0, originBytes: 0, cacheBytes: 5 }),
    "seed 0% peers 0% origin 0% cache 100%",
  );
  assert.equal(sourcesText({ seedBytes: 0, peerBytes: 0, originBytes: 0, cacheBytes: 0 }), "");
});

test("an empty file is done", () => {
  assert.match(renderBar({ ...FIGURES, doneBytes: 0, totalBytes: 0 }, { columns: 80, colour: false }), /100% \[=+\]/);
});

test("a bar on a terminal that can, lines elsewhere, nothing when quiet", () => {
  const choose = (wanted: "auto" | "bar" | "plain" | "none", isTty: boolean, env = {}, quiet = false): string => {
    const { mode, colour } = chooseProgress(wanted, quiet, { isTty, env });
    return `${mode}${colour ? " in colour" : ""}`;
  };
  assert.equal(choose("auto", true), "bar in colour");
  assert.equal(choose("auto", true, { NO_COLOR: "1" }), "bar");
  assert.equal(choose("auto", true, { TERM: "dumb" }), "plain");
  assert.equal(choose("auto", false), "plain");
  assert.equal(choose("bar", false), "bar");
  assert.equal(choose("plain", true, { NO_COLOR: "" }), "plain in colour");
  assert.equal(choose("bar", true, {}, true), "none in colour");
});

test("the rate is that of the last seconds", () => {
  const meter = new RateMeter(5000);
  assert.equal(meter.bytesPerSecond, undefined);
  meter.add(0, 0);
  assert.equal(meter.bytesPerSecond, undefined);
  for (let second = 1; second <= 10; second++) meter.add(second * 1000, second * 1000);
  assert.equal(meter.bytesPerSecond, 1000);
  for (let second = 11; second <= 20; second++) meter.add(10_000, second * 1000);
  assert.equal(meter.bytesPerSecond, 0);
});
