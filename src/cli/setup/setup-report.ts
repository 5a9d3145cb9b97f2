/** What setup did or would do, for people and for programs. */
import { createTwoFilesPatch } from "diff";
import type { FileState } from "../../engines/host-files.ts";
import type { FileChange, SetupPlan } from "../../engines/setup.ts";

/** @param isDone false: nothing was written, and the changes are shown as a diff */
export function setupText(plan: SetupPlan, isDone: boolean): string {
  const blocks = plan.engines.map((engine) => {
    const changes = plan.changes.filter((change) => change.engine === engine);
    const lines = [
      ...changes.map(({ action, path }) => `  ${isDone ? DONE[action] : action} ${path}`),
      ...plan.problems.filter((problem) => problem.engine === engine).map(({ text }) => `  problem: ${text}`),
      ...plan.notes.filter((note) => note.engine === engine).map(({ text }) => `  note: ${text}`),
      ...commandsOf(changes).map((command) => `  then: ${command}`),
    ];
    return lines.length === 0 ? `${engine}: nothing to do\n` : `${engine}:\n${lines.join("\n")}\n`;
  });
  const diffs = isDone ? [] : plan.changes.map((change) => `\n${diffOf(change)}`);
  return [...blocks, ...diffs].join("");
}

export function setupJson(plan: SetupPlan, isDone: boolean): string {
  const engines = plan.engines.map((engine) => {
    const changes = plan.changes.filter((change) => change.engine === engine);
    return {
      engine,
      changes: changes.map((change) => ({ path: change.path, action: change.action, ...(isDone ? {} : { diff: diffOf(change) }) })),
      commands: commandsOf(changes),
      notes: plan.notes.filter((note) => note.engine === engine).map(({ text }) => text),
      problems: plan.problems.filter((problem) => problem.engine === engine).map(({ text }) => text),
    };
  });
  return `${JSON.stringify({ dryRun: !isDone, engines }, undefined, 2)}\n`;
}

function commandsOf(changes: readonly FileChange[]): readonly string[] {
  return [...new Set(changes.flatMap(({ command }) => (command === undefined ? [] : [command])))];
}

/** As diff -u writes it, and patch reads it. */
function diffOf({ path, before, after }: FileChange): string {
  const text = (state: FileState | undefined): string => state?.bytes.toString("utf8") ?? "";
  const name = (prefix: string, state: FileState | undefined): string => (state === undefined ? "/dev/null" : `${prefix}${path}`);
  const patch = createTwoFilesPatch(name("a", before), name("b", after), text(before), text(after), undefined, undefined, { context: 3 });
  return patch.replace(/^=+\n/, "");
}

const DONE = { create: "created", change: "changed", restore: "restored", remove: "removed" } as const;
