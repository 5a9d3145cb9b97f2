/** Whole-state invariants of README.md that a snapshot can show: for tests and the simulator. */
import type { SwarmConfig, SwarmSnapshot } from "./contract.ts";
import { placeShareOf } from "./place-share.ts";

/** @returns what is broken, each by its ID; empty when all is well */
export function brokenInvariants(snapshot: SwarmSnapshot, config: SwarmConfig): readonly string[] {
  const broken: string[] = [];
  let taking = 0;
  let takingTasks = 0;
  for (const task of snapshot.tasks) {
    const sources = new Map<number, number>();
    const onTime = new Map<number, number>();
    const received = new Set<string>();
    const takenBefore = taking;
    for (const { linkId, piece, state, late } of task.incoming) {
      if (received.has(`${linkId} ${piece}`)) broken.push(`W3: piece ${piece} comes twice over link ${linkId}`);
      received.add(`${linkId} ${piece}`);
      sources.set(piece, (sources.get(piece) ?? 0) + 1);
      if (late || state === "verifying") continue;
      onTime.set(piece, (onTime.get(piece) ?? 0) + 1);
      taking += placeShareOf(task.pieceLengthBytes);
    }
    for (const [piece, count] of sources) {
      if (count > 2) broken.push(`W3: piece ${piece} comes from ${count} sources`);
      if ((onTime.get(piece) ?? 0) > 1) broken.push(`W3: piece ${piece} comes twice, neither late`);
    }
    if (taking > takenBefore) takingTasks++;
    const sent = new Set<string>();
    for (const { linkId, piece } of task.outgoing) {
      if (sent.has(`${linkId} ${piece}`)) broken.push(`W5: piece ${piece} is under way twice over link ${linkId}`);
      sent.add(`${linkId} ${piece}`);
    }
  }
  const { downloadCountMax } = config;
  const takingMax = downloadCountMax + Math.min(downloadCountMax, Math.max(0, takingTasks - 1));
  // The last one may have taken the rest of a place.
  if (taking >= takingMax + 1) broken.push(`W2: ${taking} places taken for ${takingTasks} tasks, at most ${takingMax}`);
  return broken;
}
