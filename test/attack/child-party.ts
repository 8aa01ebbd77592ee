import { MemoryNodes } from '../../src/dm/node-store.ts';
import { StoredBranch } from '../../src/dm/stored-branch.ts';
import { gwConfig, gwConfigFacts } from '../../src/mo/gw-config.ts';
import { ownVocabulary } from '../../src/mo/vocabulary.ts';
import { decodeNotification, sessionIdText } from '../../src/wire/syncml/notification.ts';
import { DmParty } from './dm-party.ts';
import type { KeyedParty } from './keyed-party.ts';

/** A child gateway of `gw-1`, as its parent sees it: a device with an account and a key, which reports devices behind it. */
export class ChildParty extends DmParty {
  readonly party: KeyedParty;

  constructor(id: string, party: KeyedParty) {
    const config = new StoredBranch('GwConfig', gwConfig.root, new MemoryNodes());
    for (const node of gwConfigFacts(ownVocabulary, 100)) config.plant([node.name], node);
    super(id, (call) => party.ask(call), { GwConfig: config });
    this.party = party;
    // The gateway asks whether the child is there, by a session that it wants.
    party.notified = (notification) => {
      const { sessionId } = decodeNotification(notification);
      void this.report([], sessionIdText(sessionId)).catch(() => {});
    };
  }

  /** Gets an account by its factory secret, opens the association with the key of the account, and proves itself in a session. */
  async attach(): Promise<void> {
    await this.party.connect(await this.bootstrap(this.party));
    await this.report([]);
  }
}
