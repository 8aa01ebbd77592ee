import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import { campaignNodes } from './campaign.ts';
import { many, maybe, nodes, values } from './shapes.ts';
import { ownVocabulary } from './vocabulary.ts';

/** GwEdTrigger: notifications of a DM server for many devices. The name is GwMO's; the nodes are proposed (docs/gwmo.md). */
export const gwEdTrigger: ManagementObject = {
  id: ownVocabulary.objects.GwEdTrigger,
  root: interior(
    ['Get'],
    'Notifications (Package #0) for End Devices, for sessions with the DM server itself',
    {
      Trigger: interior(['Get'], 'Triggers that the DM server made', {
        '*': interior(
          nodes,
          'A trigger. Sleeping devices are tried again until its deadline, and when they are heard',
          campaignNodes({
            Notifications: interior(
              nodes,
              'What each device is sent. A target without an entry here ends with 412',
              {
                '*': interior(
                  nodes,
                  'A device',
                  {
                    DeviceID: leaf('chr', values, 'Its DevId'),
                    Pkg0: leaf('bin', values, 'Package #0, octet by octet as the device gets it'),
                  },
                  many,
                ),
              },
              maybe,
            ),
          }),
          many,
        ),
      }),
    },
  ),
};
