/** Where the two ends of each link stand: told to the other side, and as a distance to the swarm's brain. */
import { isDeepStrictEqual } from "node:util";
import { distanceOf, type Distance, type Topology } from "../protocol/topology.ts";
import type { Link } from "./link/link.ts";

export interface LinkPlacesDeps {
  readonly links: Iterable<Link>;
  readonly placed: (link: Link, distance: Distance) => void;
}

export class LinkPlaces {
  readonly #deps: LinkPlacesDeps;
  #own: Topology;
  /** As the other side said. */
  readonly #others = new WeakMap<Link, Topology>();

  constructor(own: Topology, deps: LinkPlacesDeps) {
    this.#own = own;
    this.#deps = deps;
  }

  opened(link: Link): void {
    link.send({ type: "place", topology: this.#own });
  }

  heard(link: Link, topology: Topology): void {
    this.#others.set(link, topology);
    this.#deps.placed(link, distanceOf(this.#own, topology));
  }

  /** This host stands there from now on, on links that are open, too. */
  moved(own: Topology): void {
    if (isDeepStrictEqual(own, this.#own)) return;
    this.#own = own;
    for (const link of this.#deps.links) {
      link.send({ type: "place", topology: own });
      const other = this.#others.get(link);
      if (other !== undefined) this.#deps.placed(link, distanceOf(own, other));
    }
  }
}
