import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import { campaignNodes } from './campaign.ts';
import { serverCreated, serverWritten, zeroOrMore, zeroOrOne } from './occurrence-and-access.ts';
import { ownVocabulary } from './vocabulary.ts';

/**
 * GwEdTrigger: notifications of a DM server for many devices. GwMO defines the name; the nodes are proposed
 * (docs/gwmo.md).
 */
export const gwEdTrigger: ManagementObject = {
  id: ownVocabulary.objects.GwEdTrigger,
  root: interior(
    ['Get'],
    'Notifications (Package #0) for End Devices, for sessions with the DM server itself',
    {
      Trigger: interior(['Get'], 'Triggers that the DM server created', {
        '*': interior(
          serverCreated,
          'A trigger. A sleeping device is tried again until the deadline, and as soon as it is heard',
          campaignNodes({
            Notifications: interior(
              serverCreated,
              'Notification for each device. A target without an entry here ends with 412',
              {
                '*': interior(
                  serverCreated,
                  'A device',
                  {
                    DeviceID: leaf('chr', serverWritten, 'DevId of the device'),
                    Pkg0: leaf('bin', serverWritten, 'Package #0, exactly as it is sent to the device'),
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
