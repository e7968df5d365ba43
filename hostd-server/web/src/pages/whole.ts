/** The whole number that a text says, none below 0. */
export const whole = (text: string): number => Math.max(0, Math.round(Number(text) || 0));
