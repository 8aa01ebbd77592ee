import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import { campaignNodes } from './campaign.ts';
import { serverCreated, serverWritten, zeroOrMore, zeroOrOne } from './occurrence-and-access.ts';
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
          serverCreated,
          'A trigger. Sleeping devices are tried again until its deadline, and when they are heard',
          campaignNodes({
            Notifications: interior(
              serverCreated,
              'What each device is sent. A target without an entry here ends with 412',
              {
                '*': interior(
                  serverCreated,
                  'A device',
                  {
                    DeviceID: leaf('chr', serverWritten, 'Its DevId'),
                    Pkg0: leaf('bin', serverWritten, 'Package #0, octet by octet as the device gets it'),
                  },
                  zeroOrMore,
                ),
              },
              zeroOrOne,
            ),
          }),
          zeroOrMore,
        ),
      }),
    },
  ),
};
