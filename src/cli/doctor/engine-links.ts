/** The links between each container engine and dfdaemon: what its files say, what it has read, and a pull by its own client. */
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AppError } from "../../base/errors.ts";
import { containerdFiles, containerdRoutes } from "../../engines/containerd.ts";
import { containersRoutes } from "../../engines/containers.ts";
import { dockerRoutes } from "../../engines/docker.ts";
import type { EngineFiles, EngineName, EngineRoute } from "../../engines/engine.ts";
import type { ListenAddress } from "../../peer/config.ts";
import { SELF_TEST_REGISTRY } from "../../protocol/self-test.ts";
import { answerOrReason, ask, Unanswered } from "./ask.ts";
import { broken, type Finding, ok, skipped } from "./finding.ts";
import { processesNamed } from "./processes.ts";
import { runProgram } from "./run-program.ts";
import { freshRepository } from "./swarm-link.ts";

export interface EngineQuestion {
  readonly engine: EngineName;
  readonly files: EngineFiles;
  /** As engines on this host reach it. */
  readonly mirror: ListenAddress;
  readonly address: string;
  /** Images to pull, beside the test image. */
  readonly images: readonly string[];
  /** Why no pull can succeed; undefined when one may. */
  readonly noPull: string | undefined;
}

/** The finding `<engine> configuration`, then a `<engine> pull` for each image. */
export async function checkEngine(question: EngineQuestion): Promise<readonly Finding[]> {
  const { engine, noPull } = question;
  const link = `${engine} configuration`;
  const advice = `run: dfdaemon setup --engine ${engine}`;
  let routes: readonly EngineRoute[];
  try {
    routes = routesOf(question);
  } catch (thrown) {
    if (!(thrown instanceof AppError)) throw thrown;
    return [broken(link, thrown.message, `then ${advice}`)];
  }
  const mirrored = routes.filter(({ isMirrored }) => isMirrored);
  if (mirrored.length === 0) {
    return [broken(link, `${engine} pulls nothing through dfdaemon: ${routes[0]?.reason ?? "no file of its speaks of it"}`, advice)];
  }
  const unread = await notRead(question);
  if (unread !== undefined) return [unread];
  const names = mirrored.filter(({ registry }) => registry !== SELF_TEST_REGISTRY).map(({ registry }) => (registry === "*" ? "any registry" : registry));
  const past = routes.filter(({ isMirrored }) => !isMirrored);
  if (names.length === 0) {
    return [broken(link, `${engine} pulls nothing but the doctor's own image through dfdaemon: ${past[0]?.reason ?? "its files name no registry"}`, advice)];
  }
  const rest = past.map(({ registry, reason }) => `; past it ${registry}: ${reason}`).join("");
  const configured = ok(link, `${engine} pulls through dfdaemon: ${names.join(", ")}${rest}`);
  if (noPull !== undefined) return [configured, skipped(`${engine} pull`, noPull)];
  return [configured, ...(await pulls(question, mirrored))];
}

function routesOf({ engine, files, address }: EngineQuestion): readonly EngineRoute[] {
  if (engine === "containerd") return containerdRoutes(files, address);
  if (engine === "docker") return dockerRoutes(files, address);
  return containersRoutes(files, address);
}

/** An engine that runs with what its files said earlier. */
async function notRead({ engine, files, address }: EngineQuestion): Promise<Finding | undefined> {
  const link = `${engine} configuration`;
  if (engine === "containerd") {
    const changed = containerdFiles(files).readAtStart.map((path) => ({ path, changedMs: statSync(path).mtimeMs }));
    const [process] = processesNamed("containerd");
    const late = process === undefined ? undefined : changed.find(({ changedMs }) => changedMs > process.startedMs + START_PRECISION_MS);
    if (late === undefined) return undefined;
    return broken(link, `containerd (pid ${process?.pid}) has run since before ${late.path} was changed and has not read it`, "run: systemctl restart containerd");
  }
  if (engine !== "docker" || processesNamed("dockerd").length === 0) return undefined;
  const info = await runProgram("docker", ["info", "--format", "{{json .RegistryConfig.Mirrors}}"]);
  if (info.code !== 0 || info.stdout.includes(`http://${address}`)) return undefined;
  return broken(link, "dockerd has not read its daemon.json", "run: systemctl reload docker");
}

async function pulls(question: EngineQuestion, mirrored: readonly EngineRoute[]): Promise<readonly Finding[]> {
  const { engine, images } = question;
  const link = `${engine} pull`;
  const findings: Finding[] = [];
  const isTestMirrored = mirrored.some(({ registry }) => registry === SELF_TEST_REGISTRY || registry === "*");
  const wanted = [...(isTestMirrored ? [`${SELF_TEST_REGISTRY}/${freshRepository()}:latest`] : []), ...images];
  if (wanted.length === 0) return [skipped(link, `${engine} has no way to the test image: name one with --image`)];
  for (const image of wanted) {
    // oxlint-disable-next-line no-await-in-loop -- what a pull did is told by the mirror's counter before and after it
    findings.push(await pull(question, image));
  }
  return findings;
}

async function pull({ engine, files, mirror }: EngineQuestion, image: string): Promise<Finding> {
  const link = `${engine} pull`;
  const before = await mirrorRequests(mirror);
  const result = await (engine === "containerd" ? pullByCtr(files, image) : engine === "docker" ? pullByDocker(image) : pullByPodman(image));
  if (result === undefined) return skipped(link, `no client of ${engine} is here, or ${engine} does not run`);
  if (result.code !== 0) {
    const said = result.stderr.trim().split("\n").at(-1)?.slice(0, SAID_CHARS_MAX) ?? "";
    return broken(link, `${result.program} could not pull ${image}: ${said}`, "see dfdaemon's log for the requests it got");
  }
  if ((await mirrorRequests(mirror)) > before) return ok(link, `${result.program} pulled ${image}`);
  return broken(link, `${result.program} pulled ${image}, but not through dfdaemon`, `see which registries are mirrored: dfdaemon setup --engine ${engine} --dry-run`);
}

interface PullResult {
  readonly program: string;
  readonly code: number;
  readonly stderr: string;
}

/** Into a namespace of its own, which is removed again. */
async function pullByCtr(files: EngineFiles, image: string): Promise<PullResult | undefined> {
  const socket = process.env["CONTAINERD_ADDRESS"] ?? "/run/containerd/containerd.sock";
  if (!files.exists(socket)) return undefined;
  const ctr = (...args: readonly string[]): ReturnType<typeof runProgram> => runProgram("ctr", ["--address", socket, "--namespace", CTR_NAMESPACE, ...args]);
  const result = await ctr("content", "fetch", "--hosts-dir", containerdFiles(files).hostsDirectory, image);
  if (result.isMissing) return undefined;
  await ctr("images", "rm", "--sync", image);
  await ctr("namespaces", "rm", CTR_NAMESPACE);
  return { program: "ctr", ...result };
}

/** Docker keeps the image: it may have been there before. */
async function pullByDocker(image: string): Promise<PullResult | undefined> {
  if (processesNamed("dockerd").length === 0) return undefined;
  const result = await runProgram("docker", ["pull", "--quiet", image]);
  return result.isMissing ? undefined : { program: "docker", ...result };
}

/** By skopeo, which reads the same files and keeps nothing; else by podman. */
async function pullByPodman(image: string): Promise<PullResult | undefined> {
  const directory = mkdtempSync(join(tmpdir(), "dfdaemon-doctor-"));
  try {
    const copied = await runProgram("skopeo", ["copy", "--quiet", `docker://${image}`, `dir:${directory}`]);
    if (!copied.isMissing) return { program: "skopeo", ...copied };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  const pulled = await runProgram("podman", ["pull", "--quiet", image]);
  if (pulled.isMissing) return undefined;
  if (image.startsWith(`${SELF_TEST_REGISTRY}/`)) await runProgram("podman", ["rmi", image]);
  return { program: "podman", ...pulled };
}

/** Manifests and blobs that the mirror has been asked for. */
async function mirrorRequests(mirror: ListenAddress): Promise<number> {
  const answer = await answerOrReason(ask(mirror, "/metrics"));
  if (answer instanceof Unanswered) return 0;
  const counts = answer.body.toString("utf8").matchAll(/^dragonfly_mirror_requests_total\{[^}]*kind="(?:manifest|blob)"[^}]*\} (\d+)/gm);
  return [...counts].reduce((sum, [, count]) => sum + Number(count), 0);
}

const CTR_NAMESPACE = "dragonfly-doctor";
/** Of a process's start, as /proc has it. */
const START_PRECISION_MS = 1_000;
const SAID_CHARS_MAX = 400;
