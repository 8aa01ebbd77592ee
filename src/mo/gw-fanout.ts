import { interior, leaf, type ManagementObject } from '../syncml/ddf.ts';
import { campaignNodes } from './campaign.ts';
import { ownVocabulary } from './vocabulary.ts';

const nodes = ['Add', 'Delete', 'Get'] as const;
const values = ['Add', 'Delete', 'Get', 'Replace'] as const;

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
        { occurs: 'ZeroOrMore' },
      ),
    }),
  }),
};
