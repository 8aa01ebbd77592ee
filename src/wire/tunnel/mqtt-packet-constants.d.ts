/** The tables of mqtt-packet, for which it has no types. */
declare module 'mqtt-packet/constants.js' {
  const tables: {
    /** Reason codes that the parser takes in a PUBACK and a SUBACK of MQTT 5. It takes others for a broken packet. */
    readonly MQTT5_PUBACK_PUBREC_CODES: Record<number, string>;
    readonly MQTT5_SUBACK_CODES: Record<number, string>;
  };
  export default tables;
}
