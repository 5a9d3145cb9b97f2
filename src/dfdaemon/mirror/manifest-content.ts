import type { Digest } from "../../protocol/ids.ts";
import { parseDigest } from "../../protocol/ids.ts";

/** A manifest or index as it goes to clients: the registry's own bytes under its own content type. */
export interface Manifest {
  readonly bytes: Uint8Array;
  readonly contentType: string;
  readonly digest: Digest;
  /** What it refers to: config, layers, the manifests of an index. */
  readonly children: readonly Digest[];
}

/** What can be told from a manifest's bytes. */
export interface ManifestReading {
  /** Undefined when the bytes are no manifest that we know. */
  readonly mediaType: string | undefined;
  readonly children: readonly Digest[];
}

/** Reads a manifest of any kind; bytes that are none have no media type and no children. */
export function readManifest(bytes: Uint8Array): ManifestReading {
  const json = parseObject(bytes);
  if (json === undefined) return { mediaType: undefined, children: [] };
  return { mediaType: mediaTypeOf(json), children: childrenOf(json) };
}

/** The registry's content type where it says something, else what the content says of itself. */
export function manifestContentType(said: string | undefined, reading: ManifestReading): string {
  const saysSomething = said !== undefined && !/^(?:application\/octet-stream|binary\/octet-stream)?\s*(?:;|$)/i.test(said);
  return saysSomething ? said : (reading.mediaType ?? "application/octet-stream");
}

function mediaTypeOf(json: Json): string | undefined {
  const own = json["mediaType"];
  if (typeof own === "string" && /^[\w.+-]+\/[\w.+-]+$/.test(own)) return own;
  if (Array.isArray(json["manifests"])) return "application/vnd.oci.image.index.v1+json";
  if (isObject(json["config"]) && Array.isArray(json["layers"])) return "application/vnd.oci.image.manifest.v1+json";
  if (json["schemaVersion"] !== 1) return undefined;
  const kind = Array.isArray(json["signatures"]) ? "prettyjws" : "json";
  return `application/vnd.docker.distribution.manifest.v1+${kind}`;
}

function childrenOf(json: Json): Digest[] {
  const found = new Set<Digest>();
  const add = (text: unknown): void => {
    const digest = typeof text === "string" ? parseDigest(text) : undefined;
    if (digest !== undefined) found.add(digest);
  };
  const listed = [json["config"], ...CHILD_LISTS.flatMap((name) => listOf(json[name]))];
  for (const entry of listed) {
    if (!isObject(entry)) continue;
    add(entry["digest"]);
    add(entry["blobSum"]);
  }
  return [...found];
}

/** `blobs`: artifact manifests of OCI 1.1's release candidates; `fsLayers`: Docker's schema 1. */
const CHILD_LISTS: readonly string[] = ["layers", "manifests", "blobs", "fsLayers"];

type Json = Readonly<Record<string, unknown>>;

function parseObject(bytes: Uint8Array): Json | undefined {
  try {
    const json: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return isObject(json) ? json : undefined;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
