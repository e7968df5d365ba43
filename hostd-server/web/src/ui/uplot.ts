/** The chart library and its style, in one chunk of their own. */
import "uplot/dist/uPlot.min.css";
export { default as uPlot } from "uplot";
