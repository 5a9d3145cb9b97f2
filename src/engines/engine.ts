/** Container engines whose pulls this host's mirror can serve, and what is planned for their configuration. */

export const ENGINE_NAMES = ["containerd", "docker", "cri-o", "podman"] as const;

/** `podman` stands for skopeo and buildah, too: they read the same files. */
export type EngineName = (typeof ENGINE_NAMES)[number];

/** A registry as the mirror knows it. */
export interface MirroredRegistry {
  /** As in image names, lower case, with its port if it has one. */
  readonly host: string;
  /** Base URL where it is not `https://<host>`. */
  readonly url: string | undefined;
}

/** What engines are to be pointed at. */
export interface MirrorTarget {
  /** `HOST:PORT` of the mirror, as engines on this host reach it; it speaks plain HTTP. */
  readonly address: string;
  /** Registries to be mirrored; undefined: all. */
  readonly registries: readonly string[] | undefined;
  /** Registries that are not at `https://<host>`. */
  readonly known: readonly MirroredRegistry[];
}

/** The files of the machine as an engine reads them. Paths are absolute. */
export interface EngineFiles {
  /**
   * Undefined when there is no such file.
   *
   * @throws AppError DISK_FAILED when it cannot be read, or is no UTF-8 text
   */
  read(path: string): string | undefined;
  /** Names in a directory, sorted; none when there is no such directory. */
  list(directory: string): readonly string[];
  exists(path: string): boolean;
  /** What the program says to --version; undefined when it is not there, or not of this machine's root. */
  programVersion(name: string): ProgramVersion | undefined;
}

export interface ProgramVersion {
  readonly text: string;
  readonly major: number;
  readonly minor: number;
}

/** A file with the content it should have. */
export interface PlannedFile {
  readonly path: string;
  readonly text: string;
}

/** What makes one engine use the mirror. */
export interface EnginePlan {
  readonly engine: EngineName;
  readonly files: readonly PlannedFile[];
  /** What somebody should know: which registries are left as they are, and why. */
  readonly notes: readonly string[];
  /** What keeps this engine from being set up, and what to do; then there are no files. */
  readonly problems: readonly string[];
}

/** How an engine would pull from one registry, by its files. */
export interface EngineRoute {
  /** `*`: any that has no configuration of its own. */
  readonly registry: string;
  readonly isMirrored: boolean;
  /** Where that is said, or what is wrong. */
  readonly reason: string;
}

export const WRITTEN_BY = "# Written by `dfdaemon setup`; `dfdaemon setup --undo` takes it away.\n";

export const DOCKER_HUB = "docker.io";
