import tables from 'mqtt-packet/constants.js';

/**
 * Lets the parser take any reason code of failure in a PUBACK and in a SUBACK. MQTT 5 (sections 3.4.2.1 and 3.9.3) allows
 * only some of them there, and the parser ends the connection at others. mosquitto uses one: with `message_size_limit` it
 * answers a message that is too large with PUBACK 0x95. Each refused message would then end the connection.
 */
export function acceptForeignCodes(): void {
  for (const codes of [tables.MQTT5_PUBACK_PUBREC_CODES, tables.MQTT5_SUBACK_CODES])
    for (let code = 0x80; code <= 0xff; code++) codes[code] ??= 'not a code of this packet';
}
