/** Is the network as slow as it should be? A raw TCP transfer between two namespaces, before anything is measured. */
import { join } from "node:path";
import { WIRE_FACTOR } from "./bound.ts";
import { congestionControl, hostAddress, hostNamespace, SEED, SEED_ADDRESS } from "./network.ts";
import { type Options, racksOf } from "./options.ts";
import { Programs } from "./process.ts";

/** A cable further than this from its rate makes every figure worthless. */
const TOLERANCE = 0.03;

/** Prints the achieved rates; throws when a cable is not what was ordered. */
export async function verifyShaping(options: Options, logDir: string): Promise<void> {
  const programs = new Programs(logDir);
  const last = options.hosts - 1;
  const seedToHost = Math.min(options.seedRate, options.rate);
  try {
    await transfer(programs, "seed → h1", SEED, hostNamespace(0), hostAddress(0), seedToHost);
    await transfer(programs, `h${last + 1} → seed`, hostNamespace(last), SEED, SEED_ADDRESS, seedToHost);
    const racks = racksOf(options);
    if (racks !== undefined && racks.count > 1 && options.hosts >= 2 * racks.count && options.slow.count === 0) {
      await crowdedRack(programs, options.rate, last);
    }
    if (options.slow.count > 0) {
      await transfer(programs, "h1 (slow) → last", hostNamespace(0), hostNamespace(last), hostAddress(last), options.rate * options.slow.factor);
    }
  } finally {
    await programs.stop();
  }
  console.log(`congestion control in the namespaces: ${congestionControl(SEED)} (seed), ${congestionControl(hostNamespace(0))} (hosts)`);
}

/** Two hosts of the first rack send to two of the last: together no more than the racks' links carry. */
async function crowdedRack(programs: Programs, rate: number, last: number): Promise<void> {
  const pairs = [[0, last], [1, last - 1]] as const;
  const rates = await Promise.all(pairs.map(([from, to]) => bitsPerSecond(programs, hostNamespace(from), hostNamespace(to), hostAddress(to))));
  check("rack 1 → last rack, two at once", rates.reduce((sum, each) => sum + each, 0), rate);
}

async function transfer(programs: Programs, label: string, from: string, to: string, address: string, rate: number): Promise<void> {
  check(label, await bitsPerSecond(programs, from, to, address), rate);
}

/** Content, not wire. */
async function bitsPerSecond(programs: Programs, from: string, to: string, address: string): Promise<number> {
  const script = join(import.meta.dirname, "raw.ts");
  const receiver = programs.start(to, "raw-receive", [process.execPath, script, "receive"]);
  await receiver.line(/^ready$/);
  const result = receiver.line(/^\d+$/);
  const sender = programs.start(from, "raw-send", [process.execPath, script, "send", address]);
  const { text } = await result;
  sender.signal("SIGKILL");
  await Promise.all([sender.ended, receiver.ended]);
  return Number(text);
}

function check(label: string, contentRate: number, rate: number): void {
  const wire = contentRate * WIRE_FACTOR;
  const verdict = Math.abs(wire / rate - 1) <= TOLERANCE;
  console.log(`shaping: ${label}: ${(wire / 1e6).toFixed(2)} Mbit/s on the wire of ${(rate / 1e6).toFixed(2)}`);
  if (!verdict) throw new Error(`${label} is shaped to ${(wire / 1e6).toFixed(2)} Mbit/s instead of ${(rate / 1e6).toFixed(2)}`);
}
