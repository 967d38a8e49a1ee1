"""How the eigenvalues of the Hessian are distributed."""

from trained import model, train

from losslandscape import hessian_spectrum, plot_spectrum

spectrum = hessian_spectrum(model, *train, number_of_probes=3, steps=30, seed=0)
plot_spectrum(spectrum).get_figure().savefig("spectrum.png", dpi=200)
