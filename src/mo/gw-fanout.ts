import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import { campaignNodes } from './campaign.ts';
import { serverCreated, serverWritten, zeroOrMore, zeroOrOne } from './occurrence-and-access.ts';
import { ownVocabulary } from './vocabulary.ts';

/** GwFanout: the same commands for many devices. GwMO defines the name; the nodes are proposed (docs/gwmo.md). */
export const gwFanout: ManagementObject = {
  id: ownVocabulary.objects.GwFanout,
  root: interior(['Get'], 'Commands for many End Devices at once', {
    Fanout: interior(['Get'], 'Fan-outs that the DM server created', {
      '*': interior(
        serverCreated,
        'A fan-out',
        campaignNodes({
          Command: leaf(
            'xml',
            serverWritten,
            'Commands in the form of a SyncBody, for the tree of each device',
          ),
          Timeout: leaf(
            'int',
            serverWritten,
            'Seconds that a device may take to open a session. Default 60; the Deadline for an LwM2M client that sleeps',
            zeroOrOne,
          ),
        }),
        zeroOrMore,
      ),
    }),
  }),
};
