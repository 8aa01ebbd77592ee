import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import { campaignNodes } from './campaign.ts';
import { many, nodes, values } from './shapes.ts';
import { ownVocabulary } from './vocabulary.ts';

/** GwFanout: one command set for many devices. The name is GwMO's; the nodes are proposed (docs/gwmo.md). */
export const gwFanout: ManagementObject = {
  id: ownVocabulary.objects.GwFanout,
  root: interior(['Get'], 'Commands for many End Devices at once', {
    Fanout: interior(['Get'], 'Fan-outs that the DM server made', {
      '*': interior(
        nodes,
        'A fan-out',
        campaignNodes({
          Command: leaf('xml', values, 'Commands as SyncBody has them, for the tree of each device'),
          Timeout: leaf('int', values, 'Seconds that a device may take to open a session; 60', {
            occurs: 'ZeroOrOne',
          }),
        }),
        many,
      ),
    }),
  }),
};
