import { Cluster } from "./cluster.ts";
import { type Dfdaemon, startHostDaemon, Supernode } from "./dragonfly.ts";
import { EngineHost } from "./engine-host.ts";
import { type PushedImage, pushImage } from "./image.ts";
import type { Lab } from "./processes.ts";
import { Registry } from "./registry.ts";
import { TokenServer } from "./token-server.ts";

/** The name of the site's registry in image references. */
export const REGISTRY_NAME = "reg.test";
/** One layer above the size that comes with the join, one of several pieces, small ones. */
const LAYER_BYTES = [(8 << 20) + 1, 3 << 20, 200_000, 700];

/** A registry that wants tokens, a supernode, and hosts that each have their dfdaemon and their engine. */
export class Site {
  readonly cluster: Cluster;
  readonly tokens: TokenServer;
  readonly registry: Registry;
  readonly supernode: Supernode;
  readonly #lab: Lab;

  private constructor(lab: Lab, parts: Pick<Site, "cluster" | "tokens" | "registry" | "supernode">) {
    this.#lab = lab;
    this.cluster = parts.cluster;
    this.tokens = parts.tokens;
    this.registry = parts.registry;
    this.supernode = parts.supernode;
  }

  static async start(lab: Lab): Promise<Site> {
    const cluster = new Cluster(lab);
    const tokens = await TokenServer.start(lab, cluster.address, 5001);
    const registry = await Registry.start(lab, cluster.address, 5000, tokens);
    const supernode = await Supernode.start(lab, cluster.address);
    return new Site(lab, { cluster, tokens, registry, supernode });
  }

  /**
   * Pushes one image that everybody may pull and one that only those with the password may, both new.
   *
   * @param name their name after `public/` and `secret/`
   */
  async push(name: string, layerBytes: readonly number[] = LAYER_BYTES): Promise<{ open: PushedImage; secret: PushedImage }> {
    const push = async (repository: string): Promise<PushedImage> =>
      await pushImage(this.#lab, this.registry.backUrl, { repository, tag: "v1", layerBytes });
    return { open: await push(`public/${name}`), secret: await push(`secret/${name}`) };
  }

  /** The image of a container that only waits, for pods. @returns its reference */
  async pushPause(): Promise<string> {
    const image = { repository: "public/pause", tag: "v1", layerBytes: [700], shellCommand: "sleep 600" };
    await pushImage(this.#lab, this.registry.backUrl, image);
    return `${REGISTRY_NAME}/public/pause:v1`;
  }

  /**
   * @param name of the registry as the host's dfdaemon knows it
   * @param root files of another system for the host's engine; see {@link EngineHost}
   * @param flags of its dfdaemon
   */
  async addHost(name: string = REGISTRY_NAME, root?: string, flags: readonly string[] = []): Promise<{ engineHost: EngineHost; daemon: Dfdaemon }> {
    const host = this.cluster.addHost();
    const daemon = await startHostDaemon(this.#lab, host, this.supernode, { name, url: this.registry.url }, flags);
    return { engineHost: await EngineHost.start(this.#lab, host, root), daemon };
  }
}
