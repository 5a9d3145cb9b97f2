/** One lab at a time: the namespaces' names belong to the whole machine, and so do its cores. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const LOCK = "/run/dflab.lock";

/** Waits until no other lab runs, then holds the lock until this process ends. */
export async function lockLab(): Promise<void> {
  for (let told = false; !tryLock(); told = true) {
    const holder = holderPid();
    if (holder === undefined) {
      rmSync(LOCK, { force: true });
      continue;
    }
    if (!told) console.log(`waiting for the lab of process ${holder}`);
    await sleep(1000 + Math.random() * 500);
  }
  process.on("exit", () => rmSync(LOCK, { force: true }));
}

function tryLock(): boolean {
  try {
    writeFileSync(LOCK, String(process.pid), { flag: "wx" });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

function holderPid(): number | undefined {
  try {
    const pid = Number(readFileSync(LOCK, "utf8"));
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("lab/main.ts") ? pid : undefined;
  } catch {
    return undefined;
  }
}
