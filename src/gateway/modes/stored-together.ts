import { setImmediate as turn } from 'node:timers/promises';
import type { Campaigns } from '../store/campaigns.ts';

interface Batch {
  readonly stores: (() => void)[];
  readonly stored: Promise<void>;
}

/**
 * Stores what several devices have done in one turn of the event loop, in one transaction. When that fails, each is stored
 * alone, so that none stands in the way of the others.
 */
export class StoredTogether {
  readonly #campaigns: Pick<Campaigns, 'inTransaction'>;
  readonly #alone: (store: () => void) => Promise<void>;
  #batch: Batch | undefined;

  /** @param alone repeats what it stores until that succeeds */
  constructor(campaigns: Pick<Campaigns, 'inTransaction'>, alone: (store: () => void) => Promise<void>) {
    this.#campaigns = campaigns;
    this.#alone = alone;
  }

  /**
   * Resolves when it is stored.
   * @param store may run a second time when the transaction has failed
   */
  store(store: () => void): Promise<void> {
    this.#batch ??= { stores: [], stored: this.#storeBatch() };
    this.#batch.stores.push(store);
    return this.#batch.stored;
  }

  async #storeBatch(): Promise<void> {
    await turn();
    const stores = this.#batch?.stores ?? [];
    this.#batch = undefined;
    try {
      this.#campaigns.inTransaction(() => {
        for (const store of stores) store();
      });
    } catch {
      await Promise.all(stores.map((store) => this.#alone(store)));
    }
  }
}
